"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_TIMEOUT = 600.0

Timeout = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds until the command gives up.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of images and embedded Redis; default: KIRAZURI_DATA_DIR."),
]
CardName = Annotated[
    str | None,
    typer.Option("--card", help="Name of a card, or path of its .toml; default: KIRAZURI_CARD."),
]
CheckpointFolder = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint-dir",
        help="Folder of the checkpoint's files; default: KIRAZURI_CHECKPOINT_DIR.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free port.")]
Host = Annotated[str, typer.Option(help="0.0.0.0 serves other machines too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]
Out = Annotated[Path | None, typer.Option("--out", help="File or folder to save to.")]
Sheet = Annotated[
    Path | None,
    typer.Option("--sheet", help="Also save all images on one contact sheet in this file."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]

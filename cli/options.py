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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

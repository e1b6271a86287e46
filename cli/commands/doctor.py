"""`kirazuri doctor`: checks this machine and the settings for a start."""

from typing import Annotated

import typer

from cli.checks.finding import Finding, faults, lines_of
from cli.checks.start import check_everything, checkpoint_bytes
from cli.commands.progress_bar import byte_bar
from cli.options import AsJson, CardName, CheckpointFolder, DataFolder, Host, Port
from cli.output import (
    FAILED,
    INTERRUPTED,
    examples,
    fail,
    note,
    print_json,
    printable,
    read_settings,
)

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "kirazuri doctor",
        "kirazuri doctor --card kirazuri-v1 --checkpoint-dir /models/anima",
        "kirazuri doctor --no-hash --json",
    )
)
def doctor(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: DataFolder = None,
    card: CardName = None,
    checkpoint_dir: CheckpointFolder = None,
    has_hash: Annotated[
        bool, typer.Option("--hash/--no-hash", help="Read whole files to compute their SHA-256.")
    ] = True,
    is_json: AsJson = False,
) -> None:
    """Check this machine and the settings before a start.

    Looks at Python and its packages, torch and the device, memory, disk, Redis and its settings,
    port, clock, the checkpoint's files with their hashes, tokenizers, and the files that settings
    name; says for each what to do. Starts nothing. The exit code is 1 if there is a fault.
    """
    settings = read_settings(data_dir=data, card=card, checkpoint_dir=checkpoint_dir)
    found: list[Finding] = []
    try:
        with byte_bar("hashing", checkpoint_bytes(settings) if has_hash else 0) as advance:
            on_bytes = advance if has_hash else None
            for finding in check_everything(settings, host=host, port=port, on_bytes=on_bytes):
                found.append(finding)
                if not is_json:
                    for line in lines_of([finding]):
                        typer.echo(printable(line))
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    if is_json:
        print_json([finding.as_json() for finding in found])
    if wrong := faults(found):
        note(
            f"{len(wrong)} {'fault' if len(wrong) == 1 else 'faults'}: the service would not start"
        )
        raise typer.Exit(FAILED)

"""`kirazuri version`: prints the installed version."""

import importlib.metadata

import typer

from cli.options import AsJson
from cli.output import print_json

_NAME = "kirazuri-server"

app = typer.Typer(add_completion=False)


@app.command()
def version(is_json: AsJson = False) -> None:
    """Print the version."""
    if is_json:
        print_json({"name": _NAME, "version": importlib.metadata.version(_NAME)})
    else:
        print_version()


def print_version() -> None:
    """Print the version, also for `--version`."""
    typer.echo(f"{_NAME} {importlib.metadata.version(_NAME)}")

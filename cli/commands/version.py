"""`kirazuri version`: prints the installed version."""

import importlib.metadata

import typer

app = typer.Typer(add_completion=False)


@app.command()
def version() -> None:
    """Print the version."""
    print_version()


def print_version() -> None:
    """Print the version, also for `--version`."""
    typer.echo(f"kirazuri-server {importlib.metadata.version('kirazuri-server')}")

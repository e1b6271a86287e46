"""The command `kirazuri`. Loads neither torch nor the model."""

from typing import Annotated

import typer

from cli.commands import (
    bench,
    certificate,
    checkpoint,
    generate,
    keys,
    replay,
    up,
    verify,
    version,
)
from worker.misspelt_settings import warnings_about_names


def _show_version(is_version: bool) -> None:
    if is_version:
        version.print_version()
        raise typer.Exit


_HELP = "Turns a Danbooru-style prompt into an image URL."
_EPILOG = 'Start with `kirazuri up`, then `kirazuri generate "1girl, blue hair, smile"`.'

app = typer.Typer(
    name="kirazuri",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up, generate, replay, verify, certificate, bench, version):
    app.add_typer(command.app)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(keys.app, name="keys")


@app.callback(help=_HELP, epilog=_EPILOG)
def before_each_command(
    context: typer.Context,
    is_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print it.")
    ] = False,
) -> None:
    """Warn of variables that are no settings. The processes of `kirazuri up` log them."""
    if context.invoked_subcommand != "up":
        for warning in warnings_about_names():
            typer.echo(f"warning: {warning}", err=True)


if __name__ == "__main__":
    app()

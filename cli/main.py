"""The command `kirazuri`. Loads neither torch nor the model, and only the command that runs."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "up": "Start Redis, API and workers, report when they are ready, and stop them on Ctrl-C.",
    "generate": "Make images with a running service and save them.",
    "replay": "Run a job again and compare.",
    "verify": "Report whether an image was generated, as far as a service can know.",
    "certificate": "Make a certificate to sign images with (C2PA).",
    "bench": "Compare the speed of one image with the diffusers pipeline.",
    "version": "Print the version.",
    "checkpoint": "Inspect, download and convert checkpoints.",
    "keys": "Make, list and revoke API keys.",
}
"""Each command of cli.commands, in one line for the list of all commands."""


def load_command(name: str) -> Any:
    """Import a command, or a group of them. Some take a quarter of a second of imports."""
    loaded = import_module(f"cli.commands.{name}").app
    only = typer.Typer(add_completion=False)
    only.add_typer(loaded, name=None if len(loaded.registered_commands) == 1 else name)
    only.callback()(lambda: None)  # keeps it a group
    return typer.main.get_group(only).commands[name]


class _LoadedOnUse(TyperGroup):
    """A group that knows its commands by name and line, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        known = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}
        super().__init__(**{**attributes, "commands": known})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else None, rest


def _show_version(is_version: bool) -> None:
    if is_version:
        from cli.commands import version

        version.print_version()
        raise typer.Exit


_HELP = "Turns a Danbooru-style prompt into an image URL."
_EPILOG = 'Start with `kirazuri up`, then `kirazuri generate "1girl, blue hair, smile"`.'

app = typer.Typer(
    name="kirazuri",
    cls=_LoadedOnUse,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(help=_HELP, epilog=_EPILOG)
def before_each_command(
    context: typer.Context,
    is_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print it.")
    ] = False,
) -> None:
    """Warn of variables that are no settings. The processes of `kirazuri up` log them."""
    if context.invoked_subcommand != "up":
        from worker.misspelt_settings import warnings_about_names

        for warning in warnings_about_names():
            typer.echo(f"warning: {warning}", err=True)


if __name__ == "__main__":
    app()

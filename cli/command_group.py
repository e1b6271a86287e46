"""A group of commands that imports a command when it is called, not to list it."""

import errno
import importlib
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _what_failed(error: OSError) -> str | None:
    """The file of an error that no command foresaw, or stdout; None for a closed pipe and others.

    A folder that its user may not look into, and a name that is too long, can be met anywhere.
    """
    if error.filename is not None:
        return str(error.filename)
    return "the output cannot be written" if error.errno in _DISK_FULL else None


class Place(NamedTuple):
    """Where a command is defined, the first sentence of its help, and its panel in the help."""

    module: str
    help: str
    panel: str


class _Commands(MutableMapping[str, Any]):
    """Commands by name; each is imported when it is looked up."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = dict(places)
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            from worker.start_up import interruptible, long_lived

            with interruptible(), long_lived():
                app = importlib.import_module(self._places[name].module).app
            command = typer.main.get_command(app)
            # A module has one command, a group of this name, or several commands.
            self._loaded[name] = getattr(command, "commands", {}).get(name, command)
            self._loaded[name].name = name
            _flow(self._loaded[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _flow(command: Any) -> None:
    """Let the terminal break the lines of the help; only empty lines divide paragraphs."""
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
    for inner in getattr(command, "commands", {}).values():
        _flow(inner)


def group_of(places: Mapping[str, Place]) -> type[TyperGroup]:
    """The class of a group with these commands."""

    class CommandGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands(places)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """What lists and completions need of a command."""
            if cmd_name not in places:
                return None
            _, text, panel = places[cmd_name]
            return TyperCommand(cmd_name, help=text, rich_help_panel=panel)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            return name, self.commands[args[0]] if command else None, rest

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except OSError as exc:
                if (what := _what_failed(exc)) is None:
                    raise
                typer.echo(f"error: {what}: {exc.strerror}", err=True)
                raise typer.Exit(1) from exc

        def list_commands(self, ctx: Any) -> list[str]:
            return list(places)

    return CommandGroup

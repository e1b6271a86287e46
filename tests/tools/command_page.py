"""Generates the commands and exit codes of docs/cli.md from the command line itself."""

from collections.abc import Iterator
from typing import Any

import typer

from cli.main import app
from cli.output import EXIT_CODES


def exit_codes_table() -> str:
    """A row for every exit code."""
    rows = [f"| {code} | {text} |" for code, text in EXIT_CODES.items()]
    return "\n".join(["| exit code | meaning |", "|---|---|", *rows, ""])


def command_sections() -> str:
    """A section for every command, with its options and examples."""
    group: Any = typer.main.get_command(app)
    lines: list[str] = []
    for name, command in group.commands.items():
        lines += ["", f"### kirazuri {name}", "", command.help, *_inner(name, command)]
    return "\n".join([*lines, "", ""])


def _inner(name: str, command: Any) -> Iterator[str]:
    """The options of a command, or the commands of a group."""
    if not hasattr(command, "commands"):
        yield from _details(command)
    elif name == "bench":  # the options belong to the modules
        yield from ("", "| command | |", "|---|---|")
        for inner in command.commands.values():
            yield f"| `kirazuri {name} {inner.name}` | {inner.short_help} |"
    else:
        for inner in command.commands.values():
            yield from ("", f"#### kirazuri {name} {inner.name}", "", inner.help)
            yield from _details(inner)


def _details(command: Any) -> Iterator[str]:
    rows = [row for parameter in command.params if (row := _row(parameter))]
    if rows:
        yield from ("", "| argument, option | |", "|---|---|", *rows)
    examples = (command.epilog or "").split("\n\n")[1:]
    if examples:
        yield from ("", "```sh", *examples, "```")


def _row(parameter: Any) -> str | None:
    if parameter.name == "help":
        return None
    text = (parameter.help or "").replace("|", "\\|")
    if parameter.param_type_name == "argument":
        return f"| `{(parameter.metavar or parameter.name.upper())}` | {text} |"
    names = "`, `".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.metavar:
        names = f"{names} {parameter.metavar}".replace("|", "\\|")
    default = parameter.default
    is_shown = default not in (None, False, True) and not callable(default)
    return f"| `{names}` | {text}{f' Default: {default}.' if is_shown else ''} |"

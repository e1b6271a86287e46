"""Shared by all commands: error exit, examples in the help, reading the settings."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from pydantic import ValidationError

from worker.settings import Settings

USAGE_ERROR = 2
INTERRUPTED = 130
"""Exit codes."""


def examples(*lines: str) -> str:
    """The epilog of a command's help. Empty lines keep the lines apart."""
    return "\n\n".join(["Examples:", *lines])


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command with a message on stderr."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def command_line(*arguments: str | Path) -> str:
    """A command of this program as a shell takes it, called the way that this one was called."""
    called = Path(sys.argv[0])
    is_ours = called.name == "kirazuri"
    is_on_path = not is_ours or shutil.which("kirazuri") == str(called.absolute())
    program = "kirazuri" if is_on_path else str(called.absolute())
    return shlex.join([program, *map(str, arguments)])


def read_settings(**options: Any) -> Settings:
    """The settings; options that are not None override variables and `.env`."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as exc:
        wrong = (
            f"KIRAZURI_{'_'.join(map(str, error['loc'])).upper()}: {error['msg']}"
            for error in exc.errors()
        )
        fail("; ".join(wrong))

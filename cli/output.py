"""Shared by all commands: error exit, examples in the help, reading the settings."""

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

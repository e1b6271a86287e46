"""Shared by all commands: exit codes, errors, notes, tables, JSON, examples, the settings.

Results go to stdout, everything else to stderr.
"""

import io
import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from worker.settings import Settings

FAILED = 1
USAGE_ERROR = 2
REFUSED = 3
NOT_FOUND = 4
AWAY = 5
INTERRUPTED = 130

EXIT_CODES = {
    0: "it worked",
    FAILED: "it failed: the job failed, was cancelled or took too long; images differ; `doctor` or "
    "`inspect` found a fault; a file or a setting is wrong",
    USAGE_ERROR: "the command line is wrong; nothing was sent",
    REFUSED: "the service refused the request: a wrong field, a missing or wrong API key, the "
    "policy, a job that has ended",
    NOT_FOUND: "the service has no such job or image, or no longer",
    AWAY: "the service is away or busy: nothing answers, it is not ready, its queue or the key's "
    "limit is full; repeating the command may help",
    INTERRUPTED: "interrupted with Ctrl-C; jobs that the command waited for are cancelled",
}
"""What the exit codes mean."""


def examples(*lines: str) -> str:
    """The epilog of a command's help. Empty lines keep the lines apart."""
    return "\n\n".join(["Examples:", *lines])


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End the command with a message on stderr."""
    print_error(message)
    raise typer.Exit(code)


def print_error(message: str) -> None:
    """Print an error on stderr without ending the command."""
    lines = map(printable, message.splitlines() or [""])
    typer.echo("error: " + "\n".join(lines), err=True)


def note(text: str) -> None:
    """Tell the user something on stderr."""
    typer.echo(printable(text), err=True)


def warn(text: str) -> None:
    """Warn on stderr."""
    note(f"warning: {text}")


def printable(text: str) -> str:
    """The text on one line, without control characters, which could command the terminal."""
    spaced = "".join(" " if c in "\r\n\t" else c for c in text)
    return "".join(c if c.isprintable() else "\ufffd" for c in spaced)


def print_json(value: Any, *, is_line: bool = False) -> None:
    """Print one JSON document, or one line of JSON Lines."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=None if is_line else 2))


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns, except values that are None or empty."""
    for name, value in fields:
        if value not in (None, "", [], {}):
            typer.echo(f"{name:<17}{printable(str(value))}")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table. A terminal cuts its last column, a pipe gets it whole."""
    for line in table_lines(heads, rows, width=terminal_width()):
        typer.echo(line)


def table_lines(
    heads: Sequence[str], rows: Sequence[Sequence[object]], *, width: int | None
) -> list[str]:
    """The lines of a table; the last column is cut so that lines have at most `width` cells."""
    from rich.cells import cell_len, set_cell_size

    texts = [list(heads), *([printable(str(value)) for value in row] for row in rows)]
    sizes = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    lines = ["  ".join(map(set_cell_size, row, sizes)).rstrip() for row in texts]
    if width is None:
        return lines
    return [
        line if cell_len(line) <= width else f"{set_cell_size(line, width - 1).rstrip()}…"
        for line in lines
    ]


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is; None if it is none."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None if it was closed
    return shutil.get_terminal_size().columns if is_terminal else None


def print_what_cannot_be_encoded() -> None:
    """Let characters that stdout has not, such as kana in Latin-1, be printed as escapes."""
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors == "strict":
        stdout.reconfigure(errors="backslashreplace")


def command_line(*arguments: str | Path) -> str:
    """A command of this program as a shell takes it, called the way that this one was called."""
    called = Path(sys.argv[0])
    is_ours = called.name == "kirazuri"
    is_on_path = not is_ours or shutil.which("kirazuri") == str(called.absolute())
    program = "kirazuri" if is_on_path else str(called.absolute())
    return shlex.join([program, *map(str, arguments)])


def read_settings(**options: Any) -> "Settings":
    """The settings; options that are not None override variables and `.env`."""
    # Imported here: it takes longer than all else that `kirazuri --help` needs.
    from worker.wrong_settings import WrongSettings
    from worker.wrong_settings import read_settings as read

    try:
        return read(**{name: value for name, value in options.items() if value is not None})
    except WrongSettings as exc:
        fail(str(exc))

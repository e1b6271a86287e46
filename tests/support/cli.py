"""Runs the command line as a user does, and lists the processes that it left behind."""

import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.waiting import wait_until


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's variables without settings, so that tests do not depend on them.

    Workers compile nothing, which would take a core for minutes.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KIRAZURI_")}  # noqa: TID251 - a child's
    return {**kept, "KIRAZURI_COMPILE": "off", **variables}


def kirazuri(
    *arguments: str, folder: Path, timeout: float = 240, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def kirazuri_inline(
    *arguments: str, folder: Path, stdin: str | bytes | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in this process, which saves the second that a new one needs to start."""
    # Imported here: tests of other packages need `Running` without the whole command line.
    from cli.main import app

    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        for name in os.environ:  # noqa: TID251 - settings must not reach the command
            if name.startswith("KIRAZURI_"):
                patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        result = CliRunner().invoke(app, arguments, input=stdin)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


class Running:
    """A command that keeps running, with its output in a file."""

    def __init__(
        self, *arguments: str, folder: Path, module: str = "cli.main", **variables: str
    ) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=folder,
                env=clean_environment(**variables),
                stdout=output,
                stderr=output,
            )

    def output(self) -> str:
        """Everything that the command and its children have written."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 240) -> str:
        """Wait until the output contains `text`; the output."""
        wait_until(
            lambda: text in self.output() or self.process.poll() is not None, seconds=seconds
        )
        assert text in self.output(), self.output()
        return self.output()

    def end(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(120)


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes with the folder in an argument or a variable (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            mentioned = command + (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or belongs to another user
        if os.fsencode(folder) in mentioned:
            found.append(f"{entry.name} {command.replace(bytes(1), b' ').decode()}")
    return found

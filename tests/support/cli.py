"""Runs the command line as a user does, and looks at what it left behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 180.0


def clean_environment(**own: str) -> dict[str, str]:
    """This process's variables without settings, so that tests do not depend on them."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KIRAZURI_")}  # noqa: TID251 - a child's
    return {**kept, **own}


def kirazuri(
    *arguments: str, folder: Path, timeout: float = 90, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Running:
    """A command that goes on, with its output in a file."""

    def __init__(self, *arguments: str, folder: Path, module: str = "cli.main") -> None:
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=folder,
                env=clean_environment(),
                stdout=output,
                stderr=output,
            )

    def output(self) -> str:
        """All that it and its children wrote so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> str:
        """The output once it has `text` in it; an error if it ends or takes too long."""
        wait_until(lambda: text in self.output() or self.process.poll() is not None, seconds)
        assert text in self.output(), self.output()
        return self.output()

    def end(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that know of the folder by argument or variable (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            known = command + (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or is not ours
        if os.fsencode(folder) in known:
            found.append(f"{entry.name} {command.replace(bytes(1), b' ').decode()}")
    return found

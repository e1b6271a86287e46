"""One process of the service: its output under its name, its end, its return after a crash."""

import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cli.service import leash

_STABLE_SECONDS = 60.0
"""Whoever ran for so long has not failed in a row with the crash before."""

_LONGEST_PAUSE = 30.0


def show(name: str, line: str, *, as_json: bool) -> None:
    """Write a line of the log under the name of the process it comes from.

    As JSON, lines that are objects already stay as they are, and others become one.
    """
    text = f"{name:<8} | {line}"
    if as_json:
        now = datetime.now(UTC).isoformat()
        entry = {"level": "INFO", "logger": name, "message": line, "time": now}
        text = line if line.startswith("{") else json.dumps(entry, ensure_ascii=False)
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # the terminal is gone; the service need not be


class ChildProcess:
    """A process in a session of its own, so that Ctrl-C reaches it in its turn and not before."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = leash.command(list(arguments))
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        self._as_json = environment.get("KIRAZURI_LOG_FORMAT") == "json"
        self._last_lines: deque[str] = deque(maxlen=20)
        self._failures = 0
        self._restart_at: float | None = None
        self._start()

    def _start(self) -> None:
        self._restart_at = None
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - our own arguments
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdout is None:
            return
        with process.stdout as lines:
            for raw in lines:
                line = raw.decode(errors="replace").rstrip()
                self._last_lines.append(line)
                show(self.name, line, as_json=self._as_json)

    def _tell(self, what: str) -> None:
        show("up", f"{self.name} {what}", as_json=self._as_json)

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last line it wrote; call when it has ended."""
        self._reader.join(1)
        return next((line for line in reversed(self._last_lines) if line), "it said nothing")

    def revive(self) -> None:
        """Start it again if it has ended: after a second, later with every failure in a row."""
        code, now = self._process.poll(), time.monotonic()
        if code is None:
            return
        if self._restart_at is None:
            lasted = now - self._started_at
            self._failures = 1 if lasted > _STABLE_SECONDS else self._failures + 1
            pause = min(_LONGEST_PAUSE, 2.0 ** (self._failures - 1))
            self._restart_at = now + pause
            self._tell(f"ended with code {code}; it starts again in {pause:.0f} s")
        elif now >= self._restart_at:
            self._start()

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for its end; kill it if that takes longer than `seconds`."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._tell("does not end within its time and is killed")
            self.kill()
        self._reader.join(1)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

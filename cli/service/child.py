"""Runs one process of the service: prefixes its output, stops it, restarts it after a crash."""

import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cli.service import die_with_parent

_STABLE_SECONDS = 60.0
"""Running longer than this resets the crash counter."""


class Backoff:
    """When a process that has ended starts again: after 1 s, and later after each further crash."""

    def __init__(self, longest: float = 30.0) -> None:
        self._longest = longest
        self._failures = 0
        self._started_at = time.monotonic()
        self._restart_at: float | None = None

    def started(self) -> None:
        """The process has just been started."""
        self._started_at = time.monotonic()
        self._restart_at = None

    def ended(self) -> float | None:
        """Note that it has ended. The seconds until its restart, None if that is noted already."""
        if self._restart_at is not None:
            return None
        now = time.monotonic()
        is_stable = now > self._started_at + _STABLE_SECONDS
        self._failures = 1 if is_stable else self._failures + 1
        pause = min(self._longest, 2.0 ** (self._failures - 1))
        self._restart_at = now + pause
        return pause

    def is_over(self) -> bool:
        """Whether the pause before the restart is over."""
        return self._restart_at is not None and time.monotonic() >= self._restart_at


def write_log_line(name: str, line: str, *, as_json: bool) -> None:
    """Write a log line with the name of the process that it comes from.

    As JSON, a line that is an object stays unchanged, and another line becomes its message.
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
        pass  # the terminal is closed; the service goes on


class ChildProcess:
    """A process in its own session, so that Ctrl-C does not reach it directly."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = die_with_parent.command(list(arguments))
        self._environment = {**environment, "PYTHONUNBUFFERED": "1"}
        self._as_json = environment.get("KIRAZURI_LOG_FORMAT") == "json"
        self._last_lines: deque[str] = deque(maxlen=20)
        self._backoff = Backoff()
        self._start()

    def _start(self) -> None:
        self._backoff.started()
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
                write_log_line(self.name, line, as_json=self._as_json)

    def _log(self, what: str) -> None:
        write_log_line("up", f"{self.name} {what}", as_json=self._as_json)

    def exit_code(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._process.poll()

    def last_line(self) -> str:
        """The last line of its output; call after it has ended."""
        self._reader.join(1)
        return next((line for line in reversed(self._last_lines) if line), "no output")

    def restart_if_ended(self) -> None:
        """Start it again if it has ended, after a pause."""
        code = self._process.poll()
        if code is None:
            return
        if (pause := self._backoff.ended()) is not None:
            self._log(f"ended with code {code}; it starts again in {pause:.0f} s")
        elif self._backoff.is_over():
            self._start()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for its end; kill it after `seconds`."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._log("did not end in time and is killed")
            self.kill()
        self._reader.join(1)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._process.kill()
        self._process.wait()

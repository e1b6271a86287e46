"""Worker processes with a fake engine, forked from a server that has imported everything."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

from tests.support.fake_worker import run_fake_worker
from worker.settings import Settings

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.support.fake_worker"])


class WorkerProcess:
    """A running worker; its log goes to a file."""

    def __init__(self, settings: Settings, log: Path, **options: Any) -> None:
        """Run a fake worker with the options of `run_fake_worker`."""
        self._log = log
        log.touch()
        self._process = _FORKING.Process(target=_run, args=(settings, log, options))
        self._process.start()

    def send(self, signum: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signum)

    def kill(self) -> None:
        """Kill the process, even a stopped one, and wait for its end."""
        self._process.kill()
        self._process.join()

    def wait(self) -> int:
        """Wait for the end of the process; returns its exit code."""
        self._process.join(60)
        assert self._process.exitcode is not None, "the worker still runs"
        return self._process.exitcode

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def log(self) -> str:
        return self._log.read_text()


def _run(settings: Settings, log: Path, options: dict[str, Any]) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
    run_fake_worker(settings, **options)

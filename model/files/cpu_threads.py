"""Remembers in a file which number of CPU threads was fastest, so that it is measured once."""

import fcntl
import json
import logging
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

THREADS_FILE = "cpu-threads.json"
"""The file's name in the data folder."""

_MOST_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class ThreadConditions:
    """What the fastest number depends on. `workers` share the `cores`."""

    processor: str
    cores: int
    workers: int
    torch: str
    card: str
    precision: str

    @property
    def most(self) -> int:
        """As many threads as a worker has cores."""
        return max(1, self.cores // self.workers)


def conditions_here(card: str, *, precision: str, workers: int) -> ThreadConditions:
    """The conditions on this machine."""
    try:
        torch = version("torch")
    except PackageNotFoundError:  # `kirazuri doctor` tells it
        torch = ""
    return ThreadConditions(processor(), cores(), workers, torch, card, precision)


def processor() -> str:
    """The model of the processor."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        about = ""  # not Linux
    found = re.search(r"^model name\s*:\s*(.+)$", about, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def remembered_threads(file: Path, conditions: ThreadConditions) -> int | None:
    """The number that was measured under these conditions; None if it has to be measured."""
    try:
        with file.open("rb") as stream:
            return _find(_entries(stream.read()), conditions)
    except OSError:
        return None


def remember_threads(file: Path, conditions: ThreadConditions, threads: int) -> int:
    """Write what was measured, and return what holds from now on.

    That is the number of the worker that wrote first, if several measured at once: pictures depend
    in their last bits on it. A damaged file is replaced; one that cannot be written is reported.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            entries = _entries(stream.read())
            if (first := _find(entries, conditions)) is not None:
                return first
            kept = [entry for entry in entries if not _is_about(entry, conditions)]
            measured = time.strftime("%Y-%m-%d", time.gmtime())
            kept.append({**asdict(conditions), "threads": threads, "measured": measured})
            stream.truncate(0)
            stream.write(json.dumps(kept[-_MOST_ENTRIES:], indent=1).encode())
    except OSError as exc:
        logger.warning("the measured number of threads cannot be remembered: %s", exc)
    return threads


def _entries(content: bytes) -> list[dict[str, Any]]:
    """The entries of a file; none if it is damaged."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        return []
    return [entry for entry in found if isinstance(entry, dict)]


def _find(entries: list[dict[str, Any]], conditions: ThreadConditions) -> int | None:
    for entry in entries:
        threads = entry.get("threads")
        if _is_about(entry, conditions) and type(threads) is int:
            return threads if 1 <= threads <= conditions.most else None
    return None


def _is_about(entry: Mapping[str, Any], conditions: ThreadConditions) -> bool:
    return all(entry.get(name) == value for name, value in asdict(conditions).items())

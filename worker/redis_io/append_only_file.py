"""Prepares the append-only file of a data folder for the server."""

import shutil
from collections.abc import Callable
from pathlib import Path

from worker.errors import WorkerError

SINGLE_FILE = "appendonly.aof"
"""The whole append-only file of a Redis before 7; later servers write files into FOLDER."""

FOLDER = "appendonlydir"


class AppendOnlyFileError(WorkerError):
    """The append-only file cannot be used as it is; the message says what to do."""


def keep_old_file(data_dir: Path, report: Callable[[str], None]) -> None:
    """Copy the file of a Redis before 7: the server takes it over and never writes it again.

    Raises:
        AppendOnlyFileError: the folder holds two queues, one in the old format and one in the new.
        OSError: the copy cannot be written.
    """
    old = data_dir / SINGLE_FILE
    if not old.is_file():
        return
    if any((data_dir / FOLDER).glob("*.aof")):
        raise AppendOnlyFileError(
            f"{data_dir} holds two queues: {SINGLE_FILE}, written by a Redis before 7, and the "
            f"newer one in {FOLDER}; move away the one that you do not need"
        )
    copy = data_dir / f"{SINGLE_FILE}.before-upgrade"
    unfinished = copy.with_suffix(".unfinished")
    shutil.copy2(old, unfinished)
    unfinished.replace(copy)
    report(f"redis takes over {old}; {copy.name} is a copy for going back to the release before")

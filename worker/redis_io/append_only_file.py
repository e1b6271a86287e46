"""Takes over, completes and repairs the append-only file in a data folder.

Since Redis 7 it consists of several files in a folder: a base file with a snapshot, incremental
files with the commands since then, and a manifest that lists them.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from worker.errors import WorkerError

_SINGLE_FILE = "appendonly.aof"
"""The whole append-only file of a Redis before 7."""

_FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_ANY_FILE = "appendonly.aof.*.*"
"""Base files, such as `appendonly.aof.1.base.rdb`, and incremental files; not the manifest."""

_ENTRY = re.compile(r"file (\S+) seq \d+ type ([bih])", re.ASCII)
_SEQUENCE = re.compile(r"\.(\d+)\.(?:base|incr)\.")

_OPEN_TRANSACTION = b"*1\r\n$5\r\nMULTI\r\n"
_END_OF_TRANSACTION = b"\r\n$4\r\nEXEC\r\n"
_COMMAND = re.compile(rb"\*\d{1,7}\r\n\$\d{1,3}\r\n[A-Za-z]")


class AppendOnlyFileError(WorkerError):
    """The append-only file cannot be used as it is; the message says what to do."""


def prepare(data_dir: Path, report: Callable[[str], None]) -> None:
    """Keep a copy of an old file that the server will take over; restore a lost manifest.

    Raises:
        AppendOnlyFileError: the server would refuse the files, or begin with an empty queue.
        OSError: a file cannot be read or written.
    """
    _keep_old_file(data_dir, report)
    folder = data_dir / _FOLDER
    if not any(folder.glob(_ANY_FILE)):
        return
    names = _listed(folder)
    if not names:
        names = _restore_manifest(folder, report)
    for name in names:
        if not (folder / name).exists():
            raise AppendOnlyFileError(
                f"{folder / name} is missing; restore it from a backup, or go on without the jobs "
                f"in it: sed -i '/^file {name} /d' {folder / _MANIFEST}"
            )


def _keep_old_file(data_dir: Path, report: Callable[[str], None]) -> None:
    """Copy the file of a Redis before 7: the server takes it over, and there is no way back."""
    old = data_dir / _SINGLE_FILE
    if not old.is_file():
        return
    if any((data_dir / _FOLDER).glob(_ANY_FILE)):
        raise AppendOnlyFileError(
            f"{data_dir} holds two queues: {_SINGLE_FILE}, written by a Redis before 7, and the "
            f"newer one in {_FOLDER}; move away the one that you do not need"
        )
    copy = data_dir / f"{_SINGLE_FILE}.before-upgrade"
    _copy(old, copy)
    report(f"redis takes over {old}; {copy.name} is a copy for going back to the release before")


def _copy(file: Path, copy: Path) -> None:
    """Copy a file; a copy that was interrupted does not look like a whole one."""
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    try:
        shutil.copy2(file, unfinished)
        unfinished.replace(copy)
    finally:
        unfinished.unlink(missing_ok=True)


def _listed(folder: Path) -> list[str]:
    """The files that the manifest names, in order; empty if it is missing or damaged.

    It is also damaged if it lacks lines: the server would overwrite the files that it forgets.
    """
    try:
        lines = (folder / _MANIFEST).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    entries = [_ENTRY.match(line) for line in lines if not line.startswith("#")]
    if not all(entries):
        return []
    listed = [(entry[1], entry[2]) for entry in entries if entry]
    if any(folder.glob("*.base.*")) and all(kind != "b" for _, kind in listed):
        return []
    last = max((_sequence(name) for name, kind in listed if kind == "i"), default=0)
    # A file that the server was killed in creating is empty; older ones are no longer needed.
    if any(_sequence(one.name) > last and one.stat().st_size for one in folder.glob("*.incr.*")):
        return []
    return [name for name, kind in listed if kind != "h"]  # h: no longer needed


def _sequence(name: str) -> int:
    """The number in the name of a base or incremental file; 0 if it has none."""
    match = _SEQUENCE.search(name)
    return int(match[1]) if match else 0


def _restore_manifest(folder: Path, report: Callable[[str], None]) -> list[str]:
    """Write a manifest of the only base file and the only incremental file.

    Without one, the server would begin with an empty queue.
    """
    manifest = folder / _MANIFEST
    names = [file.name for kind in ("base", "incr") for file in folder.glob(f"*.{kind}.*")]
    sequences = [match[1] for match in map(_SEQUENCE.search, names) if match]
    if len(names) != 2 or len(sequences) != 2 or ".incr." not in names[1]:
        raise AppendOnlyFileError(
            f"{manifest} is lost or damaged, and the files next to it do not tell which of them "
            f"belong together; restore {folder} from a backup, or move it away to begin with an "
            "empty queue"
        )
    entries = zip(names, sequences, ("b", "i"), strict=True)
    text = "".join(f"file {name} seq {number} type {kind}\n" for name, number, kind in entries)
    unfinished = manifest.with_name(f"{_MANIFEST}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(manifest)
    report(f"{manifest} was lost or damaged; it is recreated with {' and '.join(names)}")
    return names


def repair_end(data_dir: Path, name: str, server: Path, report: Callable[[str], None]) -> None:
    """Cut off what follows the last whole command, such as zeros after a power loss; keep a copy.

    What the server acknowledged is on disk, so nothing but garbage follows it. If there are
    commands behind the damage, nothing is changed: they may be jobs. `name` is the damaged file.

    Raises:
        AppendOnlyFileError: the damage is not at the end.
        OSError: a file cannot be read or written.
    """
    file = data_dir / _FOLDER / name
    end = _end_of_commands(file, server) if name == _listed(file.parent)[-1] else None
    if end is None:
        raise AppendOnlyFileError(
            f"{file} is damaged and cannot be repaired; restore {file.parent} from a backup, or "
            "move it away to begin with an empty queue"
        )
    with file.open("rb") as content:
        content.seek(end)
        rest = content.read()
    if not rest:
        return  # it has been repaired already
    copy = data_dir / f"{name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    if _holds_commands(rest):
        raise AppendOnlyFileError(
            f"{file} is damaged at byte {end}, and commands follow, so it is not repaired by "
            f"itself; restore it from a backup, or cut off the last {len(rest)} bytes: "
            f"cp {file} {copy} && truncate -s {end} {file}"
        )
    _copy(file, copy)
    os.truncate(file, end)
    report(f"redis: {len(rest)} bytes of garbage are cut off from {file}; {copy} is a copy")


def _end_of_commands(file: Path, server: Path) -> int | None:
    """Where the last whole command ends; None if that cannot be found out.

    The server checks a file if it is started under another name.
    """
    name = server.name.replace("-server", "-check-aof")
    check = subprocess.run(  # noqa: S603 - no outside arguments
        [name, str(file)], executable=server, capture_output=True, text=True, check=False
    )
    end = re.search(r"ok_up_to=(\d+)", check.stdout)
    return int(end[1]) if end else None


def _holds_commands(rest: bytes) -> bool:
    """Whether whole commands may follow the damage; a torn command may come before it."""
    if rest.startswith(_OPEN_TRANSACTION):
        return _END_OF_TRANSACTION in rest
    return _COMMAND.search(rest, 1) is not None

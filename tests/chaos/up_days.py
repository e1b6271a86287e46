"""Bad days of `kirazuri up` as a user runs it, with the shipped model and its own Redis.

Each function is one day, with a folder of its own; it fails by an assertion. To add one, write a
function and decorate it with `@day`.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import httpx2

from tests.chaos.cluster import mount, unmount
from tests.chaos.faults.disks import filled
from tests.chaos.faults.fault import CannotBreak
from tests.chaos.report import DrillReport
from tests.chaos.signs import Signs, promises
from tests.support.cli import Running
from tests.support.waiting import wait_until

Day = Callable[[Path], float | None]
"""Returns the seconds of the recovery, if the day has one."""

DAYS: dict[str, Day] = {}

_SLOW_PARTS = 250
_FILLERS = 1024
"""Redis answers LOADING each time after it has loaded so many commands."""


def day(name: str) -> Callable[[Day], Day]:
    """Make a function known as a bad day."""

    def register(one: Day) -> Day:
        DAYS[name] = one
        return one

    return register


def live_through(
    names: Sequence[str], folder: Path, report: DrillReport, tell: Callable[[str], None]
) -> None:
    """Live through these days; what went wrong is added to the report."""
    for number, name in enumerate(names):
        own = folder / f"up-{number}"
        own.mkdir()
        try:
            seconds = DAYS[name](own)
        except CannotBreak as exc:
            report.skipped[name] = str(exc)
            continue
        except (AssertionError, httpx2.HTTPError) as exc:
            report.problems.append(f"{name}: {exc!r}"[:600])
            continue
        missing = [text for text in promises()[name].log if text not in _log_of(own)]
        report.problems += [f"{name}: the log does not say {text}" for text in missing]
        report.faults[name] += 1
        if seconds is not None:
            report.recoveries[name] = seconds
        tell(f"{name}: done")


def _log_of(folder: Path) -> str:
    return "".join(log.read_text(errors="replace") for log in folder.glob("up-*/log"))


class UpService:
    """A running `kirazuri up` with its data in a folder; killed at the end of the `with` block."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        arguments = ("up", "--port", "0", "--data", str(self.data))
        own = Path(mkdtemp(prefix="up-", dir=folder))
        self.running = Running(*arguments, folder=own)

    def __enter__(self) -> Self:
        """Wait until it is ready."""
        try:
            address = re.search(r"ready at (\S+)", self.running.wait_for("ready at "))
        except BaseException:
            self.kill()
            raise
        assert address
        self.client = httpx2.Client(base_url=address[1], timeout=60, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.kill()

    def kill(self) -> None:
        """Kill `kirazuri up`; its processes end with it."""
        self.running.process.kill()
        self.running.process.wait()

    def submit(self, count: int, *, first: int) -> list[str]:
        """Submit jobs of 10 steps; their ids."""
        fields = {"prompt": "1girl", "steps": 10, "resolution": "96x96"}
        answers = [
            self.client.post("/generate", json={**fields, "seed": first + n}) for n in range(count)
        ]
        assert {answer.status_code for answer in answers} <= {202}, answers[0].text
        return [answer.json()["id"] for answer in answers]

    def await_success(self, job_ids: list[str]) -> None:
        """Wait until these jobs have ended, with one picture each."""
        wait_until(lambda: all(self._job(one)["status"] == "succeeded" for one in job_ids))
        assert all(len(self._job(one)["images"]) == 1 for one in job_ids)

    def _job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/jobs/{job_id}")
        return answer.json() if answer.status_code == 200 else {"status": answer.status_code}

    def is_ready(self) -> bool:
        return self.client.get("/readyz").status_code == 200


def _newest_file(data: Path) -> Path:
    return max((data / "redis").rglob("*.incr.aof"), key=lambda file: file.stat().st_mtime)


@day("everything killed under kirazuri up")
def kill_everything(folder: Path) -> None:
    with UpService(folder) as service:
        accepted = service.submit(6, first=1)
    with UpService(folder) as service:
        service.await_success(accepted)


@day("garbled append-only file under kirazuri up")
def garble_file(folder: Path) -> None:
    """A power loss leaves bytes at the end that nobody has written."""
    with UpService(folder) as service:
        accepted = service.submit(6, first=1)
    file = _newest_file(service.data)
    with file.open("ab") as end:
        end.write(bytes(range(7, 250)))
    before = file.read_bytes()
    with UpService(folder) as service:
        service.await_success(accepted)
        files = [one.read_bytes() for one in service.data.rglob("*") if one.is_file()]
        assert before in files, "no copy of the garbled file was kept"


_FULL_DISK = "full disk under kirazuri up"


@day(_FULL_DISK)
def fill_disk(folder: Path) -> float:
    """One small disk for pictures and queue."""
    data = folder / "data"
    if not mount(data):
        raise CannotBreak("no small file system can be mounted here")
    try:
        with UpService(folder) as service:
            return _fill_disk(service)
    finally:
        unmount(data)


def _fill_disk(service: UpService) -> float:
    accepted = service.submit(6, first=1)
    signs = Signs(_FULL_DISK, [str(service.client.base_url).rstrip("/")], service.running.output)
    for _ in filled(service.data):
        wait_until(signs.look)
        time.sleep(10)  # long enough for a supervisor to lose its patience
        assert service.running.process.poll() is None, "kirazuri up has ended"
        assert service.client.get("/livez").status_code == 200
        refused = service.client.post("/generate", json={"prompt": "1girl"})
        assert refused.status_code == 503, refused.text
    freed = time.monotonic()
    wait_until(service.is_ready)
    service.await_success(service.submit(1, first=100))
    seconds = time.monotonic() - freed
    service.await_success(accepted)
    return seconds


@day("large append-only file under kirazuri up")
def load_slowly(folder: Path) -> None:
    """A file that takes longer to load than a server may take to start."""
    with UpService(folder) as service:
        accepted = service.submit(2, first=1)
        service.await_success(accepted)
    with _newest_file(service.data).open("ab") as file:
        for _ in range(_SLOW_PARTS):
            file.write(_command(b"SET", b"filler", b"") * _FILLERS)
            file.write(_command(b"DEBUG", b"SLEEP", b"0.1"))
    with UpService(folder) as service:
        service.await_success(accepted)
        assert "load" in service.running.output().lower(), (
            "nobody was told that the file is loading"
        )


def _command(*parts: bytes) -> bytes:
    """A command as the append-only file has it."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)

"""Measures how soon many listeners hear the end of a job."""

import asyncio
import time
from contextlib import suppress
from statistics import quantiles

from cli.bench.exchange import Connection
from cli.bench.fake_worker import FakeWorker
from cli.bench.filling import fill
from cli.bench.measured_service import MeasuredService

_RATE = 50
_END = b"event: succeeded"


def measure(service: MeasuredService, *, listeners: int, jobs: int) -> str:
    """A line about listeners of this many jobs, which end at 50 a second."""
    service.clear()
    ids = fill(service, jobs, owners=1)
    times = asyncio.run(_listen_all(service, ids, listeners))
    line = f"{len(times)} of {listeners} listeners of {jobs} jobs hear the end"
    if len(times) < 2:
        return line
    cuts = quantiles(times, n=100, method="inclusive")
    return f"{line}: p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms"


async def _listen_all(service: MeasuredService, ids: list[str], count: int) -> list[float]:
    """Seconds from the end of a job until each listener whose stream did not break heard it."""
    listeners = [await _open(service, ids[number % len(ids)]) for number in range(count)]
    heard = [asyncio.create_task(_hear(connection)) for connection in listeners]
    ended = await asyncio.to_thread(_end_all, service, len(ids))
    times = await asyncio.gather(*heard)
    for connection in listeners:
        connection.close()
    return [at - ended[ids[number % len(ids)]] for number, at in enumerate(times) if at]


async def _open(service: MeasuredService, job_id: str) -> Connection:
    connection = await Connection.open(service.port)
    status, _ = await connection.begin("GET", f"/jobs/{job_id}/events", service.headers(0))
    if status != 200:
        raise RuntimeError(f"a listener got {status}")
    await connection.read_until(b"event: queued")
    return connection


async def _hear(connection: Connection) -> float | None:
    """When the end of the job arrived; None if the stream broke."""
    with suppress(OSError, asyncio.IncompleteReadError):
        await connection.read_until(_END)
        return time.perf_counter()
    return None


def _end_all(service: MeasuredService, count: int) -> dict[str, float]:
    """Take and end the jobs; when the end of each was sent."""
    worker, ended = FakeWorker(service.settings), {}
    for number in range(count):
        claim = worker.take()
        if claim is None:
            raise RuntimeError("a queue with waiting jobs has none to take")
        ended[claim.job_id] = time.perf_counter()
        worker.end(claim, number)
        time.sleep(1 / _RATE)
    return ended

"""Measures how many requests one API process accepts, and its CPU time for each."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from statistics import quantiles

from cli.bench.exchange import Connection
from cli.bench.measured_service import MeasuredService
from cli.bench.prompts import body

_CONNECTIONS = 32
_WARM_UP = 200


def measure(service: MeasuredService, *, requests: int) -> list[str]:
    """A line for accepted requests and one for dry runs."""
    service.clear()
    lines = []
    for name, path in (("accepted", "/generate"), ("dry runs", "/generate?dry_run=true")):
        asyncio.run(_send(service, path, _WARM_UP))
        before = service.process_metric("process_cpu_seconds_total")
        began = time.perf_counter()
        times = asyncio.run(_send(service, path, requests))
        seconds = time.perf_counter() - began
        cpu = service.process_metric("process_cpu_seconds_total") - before
        cuts = quantiles(times, n=100, method="inclusive")
        lines.append(
            f"{name} by one process, 80 tags, {_CONNECTIONS} connections: "
            f"{requests / seconds:.0f}/s, {cpu / requests * 1000:.1f} ms of CPU each, "
            f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms"
        )
    return lines


async def _send(service: MeasuredService, path: str, count: int) -> list[float]:
    numbers = iter(range(count))
    owners = itertools.cycle(range(len(service.owners)))
    sent = (_client(service, path, numbers, next(owners)) for _ in range(_CONNECTIONS))
    return [seconds for times in await asyncio.gather(*sent) for seconds in times]


async def _client(
    service: MeasuredService, path: str, numbers: Iterator[int], owner: int
) -> list[float]:
    """Send requests one after the other; the seconds of each."""
    connection, times = await Connection.open(service.port), []
    for number in numbers:
        began = time.perf_counter()
        answer = await connection.exchange("POST", path, service.headers(owner), body(number))
        times.append(time.perf_counter() - began)
        if answer.status not in (200, 202):
            raise RuntimeError(f"POST {path} answered {answer.status}: {answer.body[:300]!r}")
    connection.close()
    return times

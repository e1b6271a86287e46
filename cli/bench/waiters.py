"""Counts the answers to many clients that wait for their pictures at the same time."""

import asyncio
import json
import time
from collections import Counter
from statistics import quantiles

from cli.bench.exchange import Answer, Connection
from cli.bench.measured_service import MeasuredService
from cli.bench.prompts import body

WAIT_SECONDS = 60


def measure(service: MeasuredService, *, clients: int, rate: float) -> str:
    """A line about waiting clients beside a fake worker that ends `rate` jobs a second."""
    service.clear()
    with service.worker(rate):
        outcomes, times = asyncio.run(_wait_all(service, clients))
    cuts = quantiles(times, n=100, method="inclusive")
    listed = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return (
        f"{clients} clients with Prefer: wait={WAIT_SECONDS}, {rate:g} jobs a second: {listed}; "
        f"answered after p50 {cuts[49]:.1f} s, p99 {cuts[98]:.1f} s"
    )


async def _wait_all(service: MeasuredService, clients: int) -> tuple[Counter[str], list[float]]:
    found = await asyncio.gather(*(_wait(service, number) for number in range(clients)))
    return Counter(outcome for outcome, _ in found), [seconds for _, seconds in found]


async def _wait(service: MeasuredService, number: int) -> tuple[str, float]:
    """What a client got, and after how many seconds."""
    connection = await Connection.open(service.port)
    headers = service.headers(number % len(service.owners))
    waiting = {**headers, "Prefer": f"wait={WAIT_SECONDS}"}
    began = time.perf_counter()
    answer = await connection.exchange("POST", "/generate", waiting, body(number))
    seconds = time.perf_counter() - began
    outcome = await _outcome(connection, headers, answer)
    connection.close()
    return outcome, seconds


async def _outcome(connection: Connection, headers: dict[str, str], answer: Answer) -> str:
    if answer.status not in (200, 202):
        return f"refused with {answer.status}"
    job = json.loads(answer.body)
    if answer.status == 202:
        known = await connection.exchange("GET", f"/jobs/{job['id']}", headers)
        return "202 and their job" if known.status == 200 else f"202 and a job with {known.status}"
    path = "/images/" + job["images"][0]["url"].rpartition("/")[2]
    picture = await connection.exchange("GET", path, headers)
    is_whole = picture.status == 200 and len(picture.body) == job["images"][0]["bytes"]
    return "with their picture" if is_whole else f"a picture with {picture.status}"

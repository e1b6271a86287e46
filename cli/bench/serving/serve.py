"""Measures a running server: saturation with clients that never pause, then arrivals at random.

Run by `kirazuri bench serve`. First every class of job runs alone a few times. Then clients send
one job after the other, which gives the saturation. Then jobs arrive as a Poisson process at
shares of it. A job is on time if it takes at most three times as long as alone.
"""

import argparse
import asyncio
import itertools
import random
import re
import time
from collections.abc import Iterable, Sequence
from statistics import median, quantiles
from typing import Any

import httpx2

from cli.bench.prompts import prompt
from cli.bench.serving.one_job import Outcome, run_job
from cli.client.connection import service_url
from cli.client.errors import WrongUsage
from cli.output import read_settings
from model.bench.report import add_json_option, print_report

SLO = 3.0
_CANCELS = 3
_SECONDS = 600.0


def main() -> None:
    """Parse the command line, measure and print the tables."""
    parser = argparse.ArgumentParser(prog="kirazuri bench serve", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", type=_address)
    parser.add_argument(
        "--classes",
        nargs="+",
        default=["square:20"],
        help="of jobs, each PRESET:STEPS or PRESET:STEPS:SAMPLER, in turn",
    )
    parser.add_argument("--clients", type=int, default=8, help="that never pause")
    parser.add_argument("--jobs", type=int, default=32, help="of each part")
    parser.add_argument("--alone", type=int, default=3, help="jobs of each class without others")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.7, 0.9])
    parser.add_argument("--seed", type=int, default=1)
    add_json_option(parser)
    options = parser.parse_args()
    try:
        rows, conditions = asyncio.run(measure(options))
    except (httpx2.TransportError, RuntimeError) as exc:
        parser.exit(1, f"error: {options.url}: {exc}\n")
    print_report(conditions, rows, command="serve", json_path=options.json)


def _address(text: str) -> str:
    try:
        return service_url(text)
    except WrongUsage as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


async def measure(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """A row for each part and class, and the conditions with what is measured once."""
    key = read_settings().api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=options.url, headers=headers, timeout=_SECONDS, limits=limits, trust_env=False
    ) as client:
        numbers = itertools.count(options.seed * 1000)
        alone = [
            await run_job(client, kind, _body(kind, next(numbers)))
            for kind in options.classes
            for _ in range(options.alone)
        ]
        usual = {
            kind: median(o.latency for o in alone if o.kind == kind) for kind in options.classes
        }
        kinds = itertools.cycle(options.classes)
        bodies = ((kind, _body(kind, next(numbers))) for kind in kinds)
        began = time.perf_counter()
        before = await _model_calls(client)
        saturated = await _closed_loop(client, bodies, options.clients, options.jobs)
        rate = len(saturated) / (time.perf_counter() - began)
        batch = _mean_batch(before, await _model_calls(client))
        rows = _rows("alone", alone, usual, options.classes, 0.0)
        rows += _rows("saturation", saturated, usual, options.classes, rate)
        arrivals = random.Random(options.seed)  # noqa: S311 - a repeatable load, no secret
        for load in options.loads:
            began = time.perf_counter()
            found = await _poisson(client, bodies, options.jobs, rate * load, arrivals)
            done = len(found) / (time.perf_counter() - began)
            rows += _rows(f"{load:.0%}", found, usual, options.classes, done)
        cancelled = [
            await run_job(client, kind, _body(kind, next(numbers)), cancels=True)
            for kind in options.classes[:1] * _CANCELS
        ]
    seconds = [o.cancel_seconds for o in cancelled if o.cancel_seconds is not None]
    conditions = (
        f"{options.url}, {options.jobs} jobs of each part, {options.clients} clients; saturation "
        f"{rate:.3f} jobs/s in batches of {batch}; "
    )
    if seconds:
        conditions += f"cancelling takes {1000 * median(seconds):.0f} ms, "
    return rows, conditions + "median seconds unless said otherwise"


async def _model_calls(client: httpx2.AsyncClient) -> tuple[float, float]:
    """Images that model calls advanced, and these calls; of all workers, since they started.

    Workers report them every few seconds. Zeros if the metrics are for another key.
    """
    text = (await client.get("/metrics")).text
    images, calls = (
        sum(map(float, re.findall(rf"^kirazuri_engine_{name}_total\S* (\S+)$", text, re.MULTILINE)))
        for name in ("evaluations", "forwards")
    )
    return images, calls


def _mean_batch(before: tuple[float, float], after: tuple[float, float]) -> str:
    """The mean number of images of a model call between two readings."""
    images, calls = (new - old for old, new in zip(before, after, strict=True))
    return f"{images / calls:.1f} images" if calls > 0 else "unknown size"


def _body(kind: str, number: int) -> dict[str, Any]:
    preset, steps, sampler, *_ = *kind.split(":"), "", ""
    body: dict[str, Any] = {"prompt": prompt(number), "seed": number, "resolution": preset}
    if steps:
        body["steps"] = int(steps)
    return {**body, "sampler": sampler} if sampler else body


async def _closed_loop(
    client: httpx2.AsyncClient, bodies: Iterable[tuple[str, Any]], clients: int, jobs: int
) -> list[Outcome]:
    """Every client sends its next job when the one before has ended."""
    waiting = itertools.islice(bodies, jobs)

    async def one_client() -> list[Outcome]:
        return [await run_job(client, kind, body) for kind, body in waiting]

    found = await asyncio.gather(*(one_client() for _ in range(min(clients, jobs))))
    return [outcome for of_client in found for outcome in of_client]


async def _poisson(
    client: httpx2.AsyncClient,
    bodies: Iterable[tuple[str, Any]],
    jobs: int,
    rate: float,
    arrivals: random.Random,
) -> list[Outcome]:
    """Send jobs at random moments, whatever became of those before."""
    sent = []
    for kind, body in itertools.islice(bodies, jobs):
        sent.append(asyncio.create_task(run_job(client, kind, body)))
        await asyncio.sleep(arrivals.expovariate(rate))
    return list(await asyncio.gather(*sent))


def _rows(
    part: str,
    outcomes: Sequence[Outcome],
    usual: dict[str, float],
    kinds: Sequence[str],
    rate: float,
) -> list[dict[str, Any]]:
    """A row for each class of jobs."""
    rows = []
    for kind in kinds:
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        if not own:
            continue
        latencies = sorted(outcome.latency for outcome in own)
        cuts = quantiles(latencies, n=100, method="inclusive") if len(own) > 1 else latencies * 99
        on_time = [o for o in own if o.is_success and o.latency <= SLO * usual[kind]]
        rows.append(
            {
                "load": part,
                "class": kind,
                "jobs": len(own),
                "failed": sum(not outcome.is_success for outcome in own),
                "pictures/s of all": rate,
                "p50": cuts[49],
                "p95": cuts[94],
                "p99": cuts[98],
                f"within {SLO:g}x alone": f"{len(on_time) / len(own):.0%}",
                "first progress": median(o.first_event for o in own),
                "accepted ms": 1000 * median(o.accepted for o in own),
                "beside the engine ms": 1000 * median(o.added for o in own),
            }
        )
    return rows


if __name__ == "__main__":
    main()

"""Measures how the queue grows: each operation by waiting jobs, load, waiting clients, listeners.

Run by `kirazuri bench queue`. It starts its own Redis and API in a temporary folder; a fake worker
takes the place of the workers. docs/scaling.md has a table and what it means.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cli.bench import listeners, load, operations, waiters
from cli.bench.measured_service import OWNERS, MeasuredService, raise_open_files
from model.bench.report import add_json_option, write_json

SIZES = (10, 1_000, 10_000, 100_000)
PARTS = ("growth", "load", "waiters", "listeners")
_CLIENTS = 1_000
_LISTENERS = 2_000


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="kirazuri bench queue", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out 100 000 waiting jobs")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of waiting jobs")
    parser.add_argument("--rounds", type=int, default=20, help="of which the median is taken")
    add_json_option(parser)
    options = parser.parse_args()
    if options.sizes is None:
        options.sizes = SIZES[:-1] if options.quick else SIZES
    conditions = f"{os.cpu_count()} cores, {raise_open_files()} open files"
    print(conditions)
    began, rows = time.monotonic(), list[dict[str, str]]()
    with tempfile.TemporaryDirectory(prefix="kirazuri-bench-") as folder:
        service = MeasuredService(Path(folder))
        try:
            for part in options.part:
                for line in _MEASURES[part](service, options):
                    print(line, flush=True)
                    rows.append({"part": part, "line": line})
        finally:
            service.stop()
    print(f"{time.monotonic() - began:.0f} s")
    if options.json is not None:
        write_json(conditions, rows, command="queue", path=options.json)


def _growth(service: MeasuredService, options: argparse.Namespace) -> Iterator[str]:
    yield f"| owners | waiting | {' | '.join(operations.COLUMNS)} |"
    yield "|---" * (len(operations.COLUMNS) + 2) + "|"
    for owners in (1, OWNERS):
        for size in options.sizes:
            values = operations.measure(service, size, owners, rounds=options.rounds)
            yield f"| {owners} | {size} | {' | '.join(f'{value:.1f}' for value in values)} |"


def _load(service: MeasuredService, _: argparse.Namespace) -> Iterator[str]:
    with service.worker(0):
        yield from load.measure(service, requests=2_000)


def _waiters(service: MeasuredService, _: argparse.Namespace) -> Iterator[str]:
    for rate in (50, 5):
        yield waiters.measure(service, clients=_CLIENTS, rate=rate)


def _listeners(service: MeasuredService, _: argparse.Namespace) -> Iterator[str]:
    for jobs in (1, 500):
        yield listeners.measure(service, listeners=_LISTENERS, jobs=jobs)


_MEASURES: dict[str, Callable[[MeasuredService, argparse.Namespace], Iterator[str]]] = {
    "growth": _growth,
    "load": _load,
    "waiters": _waiters,
    "listeners": _listeners,
}


if __name__ == "__main__":
    main()

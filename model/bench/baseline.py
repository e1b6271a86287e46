"""Compares the engine with diffusers' pipeline, each in its best arrangement of processes.

Run by `kirazuri bench baseline`. Both make the same pictures from the same weights. Each
arrangement is a number of processes with a number of threads each; it runs twice, in the order
A-B-B-A, after pictures that warm it up until two in turn take equally long. Beside other work only
the processor seconds can be compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from model.bench.picture import add_request_options, open_engine, open_library, run_engine
from model.bench.report import add_json_option, print_report

_ALIKE = 1.1
"""Warmed up when a picture takes at most so much longer than the one before."""

_MOST_WARM_UPS = 6
_LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`kind` is "diffusers", "diffusers, compiled" or "engine"; `at_once` pictures share it."""

    kind: str
    processes: int
    threads: int
    at_once: int = 1

    def __str__(self) -> str:
        many = f", {self.at_once} at once" if self.at_once > 1 else ""
        return f"{self.kind}, {self.processes} x {self.threads} threads{many}"


class Run(NamedTuple):
    """Pictures per second of all processes; seconds of a picture on the wall, and of processors."""

    rate: float
    seconds: float
    processor: float


def main() -> None:
    """Parse the command line, measure and print the table. A child process serves pictures."""
    parser = argparse.ArgumentParser(prog="kirazuri bench baseline", description=__doc__)
    add_request_options(parser)
    parser.add_argument("--pictures", type=int, default=6, help="of each process in a run")
    parser.add_argument("--at-once", type=int, default=4, help="requests that share the engine")
    parser.add_argument("--compile", action="store_true", help="also compile diffusers' blocks")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    add_json_option(parser)
    parser.add_argument("--serve", choices=["diffusers", "diffusers, compiled", "engine"],
                        help=argparse.SUPPRESS)  # fmt: skip
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    arrangements = list_arrangements(
        options.cores, at_once=options.at_once, has_compiled=options.compile
    )
    rows = measure_all(arrangements, options, sys.argv[1:])
    conditions = (
        f"{options.card}, {options.resolution or 'default size'}, {options.steps} steps of euler, "
        f"CFG {options.cfg_scale:g}, {options.device}, {options.precision}, "
        f"{options.pictures} pictures of each process, two runs in A-B-B-A order"
    )
    print_report(conditions, rows, command="baseline", json_path=options.json)


def list_arrangements(cores: int, *, at_once: int, has_compiled: bool) -> list[Arrangement]:
    """Every split of the cores into equal processes, and all of them in one thread each."""
    splits = [(n, cores // n) for n in range(1, cores + 1) if cores % n == 0]
    if cores > 1:
        splits.append((1, 1))
    kinds = ["diffusers", "diffusers, compiled"] if has_compiled else ["diffusers"]
    found = [Arrangement(kind, *split) for kind in kinds for split in splits]
    return found + [Arrangement("engine", *s, n) for n in sorted({1, at_once}) for s in splits]


def measure_all(
    arrangements: Sequence[Arrangement], options: argparse.Namespace, arguments: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each arrangement, with the means of both runs."""
    runs: dict[Arrangement, list[Run]] = {one: [] for one in arrangements}
    for one in (*arrangements, *reversed(arrangements)):
        runs[one].append(measure(one, arguments))
        if sys.stderr.isatty():
            sys.stderr.write(f"{one}: {runs[one][-1].rate:.3f} pictures/s\n")
    means = {
        one: Run(*map(statistics.mean, zip(*found, strict=True))) for one, found in runs.items()
    }
    best = max(mean.rate for one, mean in means.items() if one.kind == "diffusers")
    return [
        {
            "arrangement": str(one),
            "pictures/s": mean.rate,
            "of its two runs": " and ".join(f"{run.rate:.3f}" for run in runs[one]),
            "s per picture": mean.seconds,
            "processor s per picture": mean.processor,
            "relative to diffusers' best": f"{mean.rate / best:.2f}x",
        }
        for one, mean in means.items()
    ]


def measure(one: Arrangement, arguments: Sequence[str]) -> Run:
    """Start the processes, wait until all are warm, and let all make their pictures at once.

    Raises:
        RuntimeError: a process ended early; with the last lines that it wrote to stderr.
    """
    command = [sys.executable, "-m", "model.bench.baseline", *arguments]
    command += ["--serve", one.kind, "--at-once", str(one.at_once), "--threads", str(one.threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(one.threads),  # noqa: TID251 - passed on
                   "OMP_WAIT_POLICY": "PASSIVE"}  # fmt: skip
    with ExitStack() as entered:
        errors = entered.enter_context(tempfile.TemporaryFile("w+"))
        children = [
            entered.enter_context(_start(command, environment, errors))
            for _ in range(one.processes)
        ]
        for child in children:
            _line(child, errors)  # warmed up
        began = time.perf_counter()
        for child in children:
            if child.stdin is not None:
                child.stdin.write("go\n")
                child.stdin.flush()
        made = [json.loads(_line(child, errors)) for child in children]
        taken = time.perf_counter() - began
    seconds = [each for child in made for each in child["seconds"]]
    pictures = len(seconds) * one.at_once
    processor = sum(child["processor"] for child in made) / pictures
    return Run(pictures / taken, statistics.median(seconds) / one.at_once, processor)


def _start(
    command: list[str], environment: dict[str, str], errors: IO[str]
) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - this program itself
        command,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
    )


def _line(child: "subprocess.Popen[str]", errors: IO[str]) -> str:
    line = child.stdout.readline() if child.stdout is not None else ""
    if not line:
        status = child.wait()
        errors.seek(0)
        last = "".join(errors.readlines()[-_LAST_LINES:])
        raise RuntimeError(f"a process of the benchmark ended with {status}:\n{last}")
    return line


def serve(options: argparse.Namespace) -> None:
    """Warm up, say so, wait for a line, make the pictures, and print how long they took."""
    if options.serve == "engine":
        engine, request = open_engine(options)
        requests = [request.model_copy(update={"seed": seed}) for seed in range(options.at_once)]

        def make() -> None:
            run_engine(engine, requests)

    else:
        make = open_library(options, is_compiled=options.serve != "diffusers")
    before = float("inf")
    for _ in range(_MOST_WARM_UPS):
        seconds = _timed(make)
        if before <= _ALIKE * seconds and seconds <= _ALIKE * before:
            break
        before = seconds
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    rounds = -(-options.pictures // options.at_once)
    began = time.process_time()
    taken = {"seconds": [_timed(make) for _ in range(rounds)]}
    json.dump({**taken, "processor": time.process_time() - began}, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()


def _timed(make: Any) -> float:
    began = time.perf_counter()
    make()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""Measures how long the service takes to start: the command, the API, a warm worker, a picture.

Run by `kirazuri bench start`. It starts `kirazuri up` on a free port in an empty folder.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import httpx2

from cli.service import die_with_parent
from cli.service.service import find_port
from model.bench.report import add_json_option, print_report

_HOST = "127.0.0.1"
_SECONDS = 600.0
_PAUSE = 0.02


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(prog="kirazuri bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--card", default="kirazuri-tiny", help="name of a card")
    add_json_option(parser)
    options = parser.parse_args()
    measured = [measure(options.card) for _ in range(options.rounds)]
    rows = [
        {
            "until": name,
            "s": median(run[name] for run in measured),
            "range": f"{min(run[name] for run in measured):.2f} to "
            f"{max(run[name] for run in measured):.2f}",
        }
        for name in measured[0]
    ]
    conditions = f"{options.card}, median of {options.rounds}"
    print_report(conditions, rows, command="start", json_path=options.json)


def measure(card: str) -> dict[str, float]:
    """Seconds from the start of a process until each state."""
    command = [sys.executable, "-m", "cli.main"]
    began = time.monotonic()
    subprocess.run([*command, "--help"], check=True, capture_output=True)  # noqa: S603
    found = {"`kirazuri --help` ends": time.monotonic() - began}
    port = find_port(_HOST, 0)
    with tempfile.TemporaryDirectory(prefix="kirazuri-bench-") as folder:
        arguments = ["up", "--port", str(port), "--data", folder, "--card", card]
        began = time.monotonic()
        with Path(folder, "bench.log").open("w") as log:
            process = subprocess.Popen(  # noqa: S603 - this program
                die_with_parent.command([*command, *arguments]), stdout=log, stderr=log
            )
            try:
                found |= _follow(f"http://{_HOST}:{port}", process, began)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=_SECONDS)
    return found


def _follow(url: str, process: "subprocess.Popen[bytes]", began: float) -> dict[str, float]:
    with httpx2.Client(base_url=url, timeout=_SECONDS, trust_env=False) as client:

        def reached(state: Callable[[], bool]) -> float:
            while not _is(state):
                if process.poll() is not None or time.monotonic() - began > _SECONDS:
                    raise RuntimeError(f"`kirazuri up` ended with {process.returncode}")
                time.sleep(_PAUSE)
            return time.monotonic() - began

        found = {
            "the API answers": reached(lambda: client.get("/livez").is_success),
            "a worker is warm": reached(lambda: client.get("/readyz").is_success),
        }
        body: dict[str, Any] = {"prompt": "1girl, smile"}
        answer = client.post("/generate", json=body, headers={"Prefer": "wait=300"})
        answer.raise_for_status()
        found["the first picture is stored"] = time.monotonic() - began
    return found


def _is(state: Callable[[], bool]) -> bool:
    try:
        return state()
    except httpx2.TransportError:
        return False


if __name__ == "__main__":
    main()

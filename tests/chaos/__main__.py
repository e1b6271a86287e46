"""`make chaos`: the long drill. The exit code is 1 if a check fails."""

import argparse
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from tests.chaos.drill import drill

BOUND_SECONDS = 10.0
"""Longest recovery with the default settings: lease 6 s, maintenance 2 s, on a busy machine."""

OUTAGE_SECONDS = 30.0
"""Five leases: workers continue, and their jobs are not retried when Redis is back."""

SETTINGS = {"KIRAZURI_MAX_ATTEMPTS": "30", "KIRAZURI_DRAIN_SECONDS": "3"}
"""More attempts than the default, because of the many faults; all other settings are defaults."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between faults")
    options = parser.parse_args()
    is_broken = False
    for seed in options.seed:
        folder = Path(mkdtemp(prefix=f"kirazuri-chaos-{seed}-"))
        began = time.monotonic()

        def tell(what: str, began: float = began) -> None:
            print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr, flush=True)

        report = drill(
            folder,
            seed=seed,
            jobs=options.jobs,
            faults=options.faults,
            pause=options.pause,
            outage=OUTAGE_SECONDS,
            settings=SETTINGS,
            bound=BOUND_SECONDS,
            tell=tell,
        )
        print(f"{report}\nlogs: {folder}\n", flush=True)
        is_broken = is_broken or bool(report.problems)
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())

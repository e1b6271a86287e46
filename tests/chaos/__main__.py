"""`make chaos`: the long drill. The exit code is 1 if a check fails."""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from tests.chaos.drill import DrillPlan, drill
from tests.chaos.faults.all_faults import FAULTS
from tests.chaos.report import DrillReport
from tests.chaos.up_days import DAYS, live_through
from worker.redis_io.server import find_redis_server

BOUND_SECONDS = 10.0
"""Longest recovery with the default settings: lease 6 s, maintenance 2 s, on a busy machine."""

SETTINGS = {
    "KIRAZURI_MAX_ATTEMPTS": "30",
    "KIRAZURI_DRAIN_SECONDS": "3",
    "KIRAZURI_MAX_QUEUE": "3000",
}
"""More attempts than the default, because of the many faults; all other settings are defaults."""

_IN_NAMESPACE = "--in-namespace"


def main() -> int:
    options = _options()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    reports = [_drill(seed, options) for seed in options.seed]
    if options.days:
        reports.append(_live(options.days))
    return int(any(report.problems for report in reports))


def _drill(seed: int, options: argparse.Namespace) -> DrillReport:
    """The drill of one seed."""
    folder = Path(mkdtemp(prefix=f"kirazuri-chaos-{seed}-"))
    plan = DrillPlan(
        seed=seed,
        settings=SETTINGS,
        redis_server=options.redis_server or find_redis_server(),
        jobs=options.jobs,
        overlapping=options.faults,
        pause=options.pause,
        one_by_one=tuple(options.only),
        bound=BOUND_SECONDS,
    )
    report = drill(folder, plan, _clock())
    print(f"{report}\nlogs: {folder}\n", flush=True)
    return report


def _live(days: list[str]) -> DrillReport:
    """The bad days of `kirazuri up`, which no seed changes."""
    folder = Path(mkdtemp(prefix="kirazuri-days-"))
    report = DrillReport()
    live_through(days, folder, report, _clock())
    report.judge_recoveries(BOUND_SECONDS)
    print("\n".join(["bad days of kirazuri up", *report.outcome()]))
    print(f"logs: {folder}\n", flush=True)
    return report


def _clock() -> Callable[[str], None]:
    """Prints a line with the time since now."""
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr, flush=True)

    return tell


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos ARGS=...", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="*", default=[1])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--faults", type=int, default=40, help="faults that may overlap")
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between them")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=sorted(FAULTS),
        default=list(FAULTS),
        metavar="FAULT",
        help="faults that come one by one; default: all",
    )
    parser.add_argument(
        "--days",
        nargs="*",
        choices=list(DAYS),
        default=list(DAYS),
        metavar="DAY",
        help="bad days of `kirazuri up`; default: all",
    )
    parser.add_argument("--redis-server", type=Path, help="default: the embedded one")
    parser.add_argument(_IN_NAMESPACE, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _enter_namespace() -> None:
    """Run again with the right to mount small disks, if this system grants it to its users."""
    if os.geteuid() == 0 or _IN_NAMESPACE in sys.argv or not shutil.which("unshare"):
        return
    launcher = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*launcher, "true"], capture_output=True, check=False).returncode == 0:
        module = [sys.executable, "-m", "tests.chaos", _IN_NAMESPACE, *sys.argv[1:]]
        os.execvp(launcher[0], [*launcher, *module])


if __name__ == "__main__":
    _enter_namespace()
    sys.exit(main())

"""`make fuzz`: schemathesis and the properties of the parsers, with many examples."""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.effort import EXAMPLES_VARIABLE
from tests.fuzz.schema import SETTINGS, errors_in_log, run_schemathesis
from tests.fuzz.service import running_service

_HERE = Path(__file__).parent


def fuzz_api(seconds: int, seed: int) -> bool:
    """Every endpoint, alone and in sequences, with new seeds until the time is over."""
    deadline, found = time.monotonic() + seconds, 0
    with running_service(SETTINGS) as service:
        while not found:
            options = ("--max-examples", "300", "--seed", str(seed))
            found = run_schemathesis(service, *options).returncode
            seed += 1
            if time.monotonic() > deadline:
                break
        trouble = errors_in_log(service)
    if trouble:
        print(f"errors in the log:\n{trouble}")
    return not found and not trouble


def fuzz_parsers(examples: int, seed: int) -> bool:
    """All properties of tests/fuzz except the OpenAPI document, with new examples."""
    command = [sys.executable, "-m", "pytest", "-q", "--durations=0", "--timeout=3600"]
    command += [f"--hypothesis-seed={seed}", str(_HERE), "--ignore", str(_HERE / "test_schema.py")]
    variables = {**os.environ, EXAMPLES_VARIABLE: str(examples)}  # noqa: TID251 - a child's
    return subprocess.run(command, env=variables, check=False).returncode == 0


def main() -> int:
    """0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10, help="no new seed is started after this time"
    )
    parser.add_argument("--examples", type=int, default=5000, help="examples of each property")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    started = time.monotonic()
    print(f"seed {given.seed}")
    is_good = fuzz_parsers(given.examples, given.seed)
    is_good &= fuzz_api(max(1, round(given.minutes * 60)), given.seed)
    print(
        f"{'nothing found' if is_good else 'FOUND SOMETHING'} in {time.monotonic() - started:.0f} s"
    )
    return int(not is_good)


if __name__ == "__main__":
    sys.exit(main())

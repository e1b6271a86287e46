"""`python -m tests.fuzz`: schemathesis and the parsers' properties for long; see `make fuzz`."""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.effort import EXAMPLES_VARIABLE
from tests.fuzz.schema import SETTINGS, accidents, run_schemathesis
from tests.fuzz.service import running_service

_HERE = Path(__file__).parent


def fuzz_api(seconds: int, seed: int) -> bool:
    """Every endpoint, alone and in sequences, with one seed after another while there is time."""
    deadline, found = time.monotonic() + seconds, 0
    with running_service(SETTINGS) as service:
        while not found:
            options = ("--max-examples", "300", "--seed", str(seed))
            found = run_schemathesis(service, *options).returncode
            seed += 1
            if time.monotonic() > deadline:
                break
        trouble = accidents(service)
    if trouble:
        print(f"the log tells of accidents:\n{trouble}")
    return not found and not trouble


def fuzz_parsers(examples: int, seed: int) -> bool:
    """Every property of tests/fuzz/test_*.py but that of the document, with new cases."""
    command = [sys.executable, "-m", "pytest", "-q", "--durations=0", "--timeout=3600"]
    command += [f"--hypothesis-seed={seed}", str(_HERE), "--ignore", str(_HERE / "test_schema.py")]
    variables = {**os.environ, EXAMPLES_VARIABLE: str(examples)}  # noqa: TID251 - a child's
    return subprocess.run(command, env=variables, check=False).returncode == 0


def main() -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=10, help="after which no further seed is begun"
    )
    parser.add_argument("--examples", type=int, default=5000, help="of each parser's property")
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

"""One or more hostile clients against the service, and how an honest one fares meanwhile."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.siege.bystander import Bystander, Calls
from tests.siege.service import BesiegedService
from tests.support.cli import clean_environment

MOST_MILLISECONDS = 250.0
"""Bound for 99 of 100 calls of the honest client."""

MOST_GROWTH = 250_000_000
"""Bound for the memory of the API process, in bytes above its beginning."""

_FOES = ("foe", "other-foe")


@dataclass(frozen=True)
class Round:
    """What happened while these hostile clients were at work."""

    kinds: Sequence[str]
    answers: Counter[str]
    probes: Calls
    dry_runs: Calls
    growth: int

    def broken(self, *, is_timed: bool) -> list[str]:
        """The bounds that were broken."""
        name, found = " and ".join(self.kinds), list[str]()
        for calls in (self.probes, self.dry_runs):
            found += [f"{name}: {failure}" for failure in calls.failures[:3]]
            if is_timed and calls.milliseconds(0.99) > MOST_MILLISECONDS:
                found.append(f"{name}: p99 is {calls.milliseconds(0.99):.0f} ms")
        if not self.probes.seconds or not self.dry_runs.seconds:
            found.append(f"{name}: the honest client was never answered")
        if self.growth > MOST_GROWTH:
            found.append(f"{name}: grew by {self.growth / 1e6:.0f} MB")
        if unexpected := [status for status in self.answers if status.startswith("5")]:
            allowed = {"503"}  # a budget or all connections are in use
            found += [
                f"{name}: answered {status}" for status in unexpected if status not in allowed
            ]
        return found

    def row(self) -> str:
        """A row of the table."""
        answers = ", ".join(f"{status}: {n}" for status, n in sorted(self.answers.items()))
        numbers = [
            f"{calls.milliseconds(share):.0f}"
            for calls in (self.probes, self.dry_runs)
            for share in (0.5, 0.99)
        ]
        name = " and ".join(self.kinds)
        return f"| {name} | {' | '.join(numbers)} | {self.growth / 1e6:.0f} | {answers} |"


HEADING = (
    "| hostile clients | `/livez` p50 ms | p99 ms | dry run p50 ms | p99 ms | memory MB | "
    "answers to them |\n"
    "|---|---|---|---|---|---|---|"
)


def attack(service: BesiegedService, kinds: Sequence[str], *, seconds: float, before: int) -> Round:
    """Let hostile clients of these kinds work for some seconds; `before` is the memory then."""
    with Bystander(service) as bystander:
        clients = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.siege.hostile", kind),
                    *("--port", str(service.port), "--seconds", str(seconds)),
                ],
                env=clean_environment(
                    SIEGE_KEYS=json.dumps(
                        {"foe": service.secrets[foe], "powerless": service.secrets["powerless"]}
                    )
                ),
                stdout=subprocess.PIPE,
                text=True,
            )
            for kind, foe in zip(kinds, _FOES, strict=False)
        ]
        outputs = [client.communicate(timeout=seconds + 120)[0] for client in clients]
    answers = Counter[str]()
    for output in outputs:
        answers.update(json.loads(output))
    growth = bystander.most_bytes - before
    return Round(kinds, answers, bystander.probes, bystander.dry_runs, growth)

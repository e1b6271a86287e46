"""The results of a drill."""

import statistics
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class DrillReport:
    """The results of a drill. `problems` must stay empty."""

    seed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    retries: int = 0
    takeovers: list[float] = field(default_factory=list)
    recoveries: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    redis_bytes: int = 0
    restarts: int = 0
    webhooks: str = ""

    def __str__(self) -> str:
        states = ", ".join(f"{name} {count}" for name, count in sorted(self.states.items()))
        lines = [
            f"seed {self.seed}: {self.seconds:.0f} s",
            f"jobs accepted: {self.states.total()} ({states}); refused as nonsense: {self.refused}",
            f"lost: {len(self.lost)}",
            f"duplicated: {len(self.duplicated)}",
            f"attempts beyond the first: {self.retries}; processes started again: {self.restarts}",
            f"recovery of a killed worker's jobs: {spread(self.takeovers)}",
            f"webhooks: {self.webhooks}",
            f"memory of Redis: {self.redis_bytes / 2**20:.1f} MiB",
            *self.outcome(),
        ]
        return "\n".join(lines)

    def outcome(self) -> list[str]:
        """The faults, how soon the service recovered from them, and all problems."""
        listed = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        recovered = ", ".join(f"{name} {found:.1f} s" for name, found in self.recoveries.items())
        return [
            f"faults: {self.faults.total()} ({listed})",
            f"recovery of the service: {spread(list(self.recoveries.values()))} ({recovered})",
            *(f"SKIPPED: {name}: {reason}" for name, reason in self.skipped.items()),
            *(f"PROBLEM: {problem}" for problem in self.problems),
        ]

    def judge_recoveries(self, bound: float) -> None:
        """Add a problem if the 99th percentile of all recoveries is more than `bound` seconds."""
        for name, found in (("jobs", self.takeovers), ("service", [*self.recoveries.values()])):
            slow = [seconds for seconds in found if seconds > bound]
            if slow and percentile(found, 99) > bound:
                self.problems.append(f"recovery of {name} took {max(slow):.1f} s, over {bound:g} s")


def percentile(seconds: list[float], number: int) -> float:
    """A percentile of at least one value."""
    if len(seconds) < 2 or max(seconds) == float("inf"):
        return max(seconds)
    return statistics.quantiles(seconds, n=100, method="inclusive")[number - 1]


def spread(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return f"{len(seconds)} measured"
    middle, high = percentile(seconds, 50), percentile(seconds, 99)
    return f"p50 {middle:.1f} s, p99 {high:.1f} s, n={len(seconds)}"

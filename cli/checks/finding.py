"""The result of a check, and how it is printed."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `check` names it, `found` is a fact, `advice` says what to do.

    Further lines of `found` are a table.

    With a fault the service does not start, or fails at its first job.
    """

    check: str
    state: State
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as `--json` prints it."""
        return asdict(self)


_WIDTH = 29
"""The longest name of a check, and a space."""


def lines_of(findings: Iterable[Finding]) -> Iterator[str]:
    """State, check and fact in columns; advice, the same only once, on lines of its own."""
    said: set[str] = set()
    for finding in findings:
        first, *others = finding.found.splitlines()
        yield f"{finding.state:<8}{finding.check:<{_WIDTH}}{first}"
        yield from others
        for line in finding.advice.splitlines():
            if line not in said:
                yield f"{'':<8}→ {line}"
            said.add(line)


def faults(findings: Iterable[Finding]) -> list[Finding]:
    """The faults among them."""
    return [finding for finding in findings if finding.state == "fault"]

"""What a fault is.

A fault is a generator: it breaks something, yields while it lasts, and fixes it. `@fault` makes it
known to the drill. What holds afterwards is the same for all: the service is ready again by itself,
a new job ends, and no job is lost or made twice. What else must hold is asserted in the generator.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.cluster import Cluster

Breaking = Callable[["Cluster"], Iterator[None]]


class CannotBreak(Exception):
    """This machine does not allow the fault; the message says why. The drill skips it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by its name, which is also the name of its row in docs/operating.md.

    It lasts a random time within `seconds`. One that `is_apart` never overlaps with others.
    """

    name: str
    begin: Breaking
    seconds: tuple[float, float]
    is_apart: bool


FAULTS: dict[str, Fault] = {}
"""All known faults by name."""


def fault(
    name: str, *, seconds: tuple[float, float], is_apart: bool = False
) -> Callable[[Breaking], Breaking]:
    """Make a generator known as a fault."""

    def register(begin: Breaking) -> Breaking:
        FAULTS[name] = Fault(name, begin, seconds, is_apart)
        return begin

    return register

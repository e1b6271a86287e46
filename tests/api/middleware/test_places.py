"""Which connection gives its place to a newer one."""

from dataclasses import dataclass

from api.middleware.places import RESERVE, Places


@dataclass(eq=False)
class Caller:
    """A connection in one of three states."""

    state: str
    is_cut: bool = False

    def is_replaceable(self, *, requests: bool) -> bool:
        return self.state == "idle" or (requests and self.state == "public")

    def cut_off(self) -> None:
        self.is_cut = True


def test_the_oldest_without_a_request_goes_first() -> None:
    places = Places(4)
    callers = [Caller(state) for state in ("busy", "public", "idle", "idle")]
    assert all(places.take(caller) for caller in callers)
    for expected in (callers[2], callers[3], callers[1]):
        assert places.take(Caller("busy"))
        assert expected.is_cut
    assert not places.take(Caller("idle"))


def test_the_reserve_is_bounded_and_its_oldest_goes_first() -> None:
    places = Places(1)
    places.take(Caller("busy"))
    reserve = [Caller("busy") for _ in range(2 * RESERVE)]
    assert not any(places.take(caller) for caller in reserve)
    assert [caller.is_cut for caller in reserve] == [True] * RESERVE + [False] * RESERVE

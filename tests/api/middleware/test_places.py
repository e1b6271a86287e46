"""Which connection gives its place to a newer one."""

from dataclasses import dataclass

from api.middleware.places import RESERVE, Places


@dataclass(eq=False)
class Caller:
    """A connection; `has_key` says whose request it has."""

    has_key: bool = False
    is_cut: bool = False
    asked: int = 0

    def needs_key(self) -> bool:
        self.asked += 1
        return self.has_key

    def cut_off(self) -> None:
        self.is_cut = True


def admit(places: Places, caller: Caller) -> bool:
    """Take a place and begin a request."""
    is_taken = places.take(caller)
    places.begin(caller)
    return is_taken


def test_the_oldest_without_a_request_goes_first() -> None:
    places = Places(4)
    busy, public = Caller(has_key=True), Caller()
    idle = [Caller(), Caller()]
    assert admit(places, busy)
    assert admit(places, public)
    assert all(places.take(caller) for caller in idle)
    for expected in (*idle, public):
        assert admit(places, Caller(has_key=True))
        assert expected.is_cut
    assert not places.take(Caller())
    assert not busy.is_cut


def test_a_connection_gives_its_place_again_when_its_request_has_ended() -> None:
    places = Places(2)
    first, second = Caller(has_key=True), Caller(has_key=True)
    assert admit(places, first)
    assert admit(places, second)
    assert not places.take(Caller())  # both were found to need a key
    places.end(second)
    assert places.take(Caller())
    assert second.is_cut
    assert not first.is_cut
    places.leave(first)
    assert places.take(Caller())


def test_the_reserve_is_bounded_and_its_oldest_goes_first() -> None:
    places = Places(1)
    admit(places, Caller(has_key=True))
    reserve = [Caller() for _ in range(2 * RESERVE)]
    assert not any(admit(places, caller) for caller in reserve)
    assert [caller.is_cut for caller in reserve] == [True] * RESERVE + [False] * RESERVE


def test_what_a_new_connection_costs_does_not_grow_with_their_number() -> None:
    places = Places(1000)
    busy = [Caller(has_key=True) for _ in range(990)]
    assert all(admit(places, caller) for caller in busy)
    flood = [Caller() for _ in range(1000)]
    assert all(admit(places, caller) for caller in flood)
    assert sum(caller.is_cut for caller in flood) == 990
    assert max(caller.asked for caller in (*busy, *flood)) == 1

"""Connections parse a few slices in each step of the event loop, beginners first."""

import asyncio
from dataclasses import dataclass

from api.middleware.parse_turns import EVENTS_AT_ONCE, ParseTurns

SLICE = 32
"""Events of a slice of those who send much; a small request has two."""


@dataclass(eq=False)
class Sender:
    """A connection with some slices to parse."""

    name: str
    slices: int
    turns: ParseTurns
    log: list[str]
    parsed: int = 0

    def parse_slice(self) -> int:
        self.parsed += 1
        self.log.append(self.name)
        if self.parsed < self.slices:
            self.turns.ask(self)
        return SLICE if self.slices > 1 else 2

    def is_beginner(self) -> bool:
        return self.parsed == 0


async def test_beginners_do_not_wait_for_those_who_send_much() -> None:
    turns, log = ParseTurns(), list[str]()
    senders = [Sender("much", 50, turns, log) for _ in range(20)]
    for sender in senders:
        turns.ask(sender)
    most = 0
    while not all(sender.parsed for sender in senders):
        before = len(log)
        await asyncio.sleep(0)
        most = max(most, len(log) - before)
    assert most == EVENTS_AT_ONCE // SLICE
    log.clear()
    turns.ask(Sender("new", 1, turns, log))
    for _ in range(3):
        await asyncio.sleep(0)
    assert "new" in log
    while not all(sender.parsed == sender.slices for sender in senders):
        for _ in range(10):  # others get on although beginners keep coming
            turns.ask(Sender("new", 1, turns, log))
        await asyncio.sleep(0)


async def test_many_small_requests_are_parsed_in_one_step() -> None:
    """Steps may be long: with a few requests in each, others would wait for seconds."""
    turns, log = ParseTurns(), list[str]()
    for _ in range(EVENTS_AT_ONCE // 2):
        turns.ask(Sender("small", 1, turns, log))
    turns.ask(Sender("next", 1, turns, log))
    await asyncio.sleep(0)
    assert log == ["small"] * (EVENTS_AT_ONCE // 2)


async def test_a_connection_waits_for_one_turn_at_a_time() -> None:
    turns, log = ParseTurns(), list[str]()
    sender = Sender("one", 1, turns, log)
    for _ in range(3):
        turns.ask(sender)
    for _ in range(5):
        await asyncio.sleep(0)
    assert log == ["one"]


async def test_an_error_costs_nobody_else_a_turn() -> None:
    turns, log = ParseTurns(), list[str]()

    class Broken(Sender):
        def parse_slice(self) -> int:
            raise ValueError("broken")

    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    for name in ("a", "b", "c", "d", "e"):
        turns.ask(Broken("broken", 1, turns, log))
        turns.ask(Sender(name, 1, turns, log))
    for _ in range(20):
        await asyncio.sleep(0)
    assert log == ["a", "b", "c", "d", "e"]
    assert len(errors) == 5

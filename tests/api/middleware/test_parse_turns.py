"""Connections parse a few slices in each step of the event loop, beginners first."""

import asyncio
from dataclasses import dataclass

from api.middleware.parse_turns import TURNS_AT_ONCE, ParseTurns


@dataclass(eq=False)
class Sender:
    """A connection with some slices to parse."""

    name: str
    slices: int
    turns: ParseTurns
    log: list[str]
    parsed: int = 0

    def parse_slice(self) -> None:
        self.parsed += 1
        self.log.append(self.name)
        if self.parsed < self.slices:
            self.turns.ask(self)

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
    assert most == TURNS_AT_ONCE
    log.clear()
    turns.ask(Sender("new", 1, turns, log))
    await asyncio.sleep(0)
    assert "new" in log
    while not all(sender.parsed == sender.slices for sender in senders):
        for _ in range(10):  # others get on although beginners keep coming
            turns.ask(Sender("new", 1, turns, log))
        await asyncio.sleep(0)


async def test_a_connection_waits_for_one_turn_at_a_time() -> None:
    turns, log = ParseTurns(), list[str]()
    sender = Sender("one", 1, turns, log)
    for _ in range(3):
        turns.ask(sender)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert log == ["one"]

"""Requests of a burst begin a few at a time."""

import asyncio

from api.middleware.start_gate import STARTS_AT_ONCE, StartGate


async def test_a_burst_begins_in_order_and_a_few_in_each_step() -> None:
    gate, started = StartGate(), list[int]()

    async def request(number: int) -> None:
        await gate.wait_for_turn()
        started.append(number)

    requests = [asyncio.create_task(request(number)) for number in range(100)]
    requests[STARTS_AT_ONCE + 1].cancel()
    most, before = 0, 0
    while not all(request.done() for request in requests):
        await asyncio.sleep(0)
        most, before = max(most, len(started) - before), len(started)
    assert started == [number for number in range(100) if number != STARTS_AT_ONCE + 1]
    assert most == STARTS_AT_ONCE


async def test_a_single_request_begins_at_once() -> None:
    gate = StartGate()
    for _ in range(3):
        begun = asyncio.create_task(gate.wait_for_turn())
        await asyncio.sleep(0)
        assert begun.done()

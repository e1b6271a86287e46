"""Background tasks start again after an unexpected failure."""

import asyncio
import logging

import pytest

from tests.support.waiting import async_wait_until
from worker.telemetry.background import FAILURES, BackgroundTask


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.telemetry.background.FIRST_PAUSE_SECONDS", 0.001)


@pytest.mark.parametrize("failure", [KeyError("job"), asyncio.CancelledError(), None])
async def test_a_task_that_fails_or_ends_is_started_again(
    failure: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    runs, before = 0, FAILURES["test"]

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            await asyncio.sleep(3600)
        if failure is not None:
            raise failure

    caplog.set_level(logging.ERROR)
    task = BackgroundTask("test", work)
    task.start()
    task.start()
    await async_wait_until(lambda: runs == 3)
    await task.stop()
    assert FAILURES["test"] - before == 2
    assert caplog.text.count("event=background_task_failed task=test") == 2
    task.start()
    await asyncio.sleep(0)
    assert runs == 3, "it was stopped for good"


async def test_the_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def fail() -> None:
        raise ValueError

    monkeypatch.setattr("worker.telemetry.background.FIRST_PAUSE_SECONDS", 1)
    monkeypatch.setattr("worker.telemetry.background.LONGEST_PAUSE_SECONDS", 5)
    monkeypatch.setattr("worker.telemetry.background.asyncio.sleep", note)
    task = BackgroundTask("test", fail)
    task.start()
    while len(pauses) < 5:
        await sleep(0)
    await task.stop()
    assert pauses[:5] == [1, 2, 4, 5, 5]

"""`kirazuri bench queue` in small numbers."""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cli.bench import listeners, load, operations, queue, waiters
from cli.bench.measured_service import MeasuredService
from cli.bench.prompts import prompt
from tests.support.cli import processes_of


@pytest.fixture(scope="module")
def service() -> Iterator[MeasuredService]:
    with TemporaryDirectory(prefix="kirazuri-bench-") as folder:
        started = MeasuredService(Path(folder))
        yield started
        started.stop()


def test_a_start_that_fails_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.bench.measured_service._START_SECONDS", 0.001)
    with TemporaryDirectory(prefix="kirazuri-bench-") as folder:
        with pytest.raises(RuntimeError):
            MeasuredService(Path(folder))
        assert processes_of(Path(folder)) == []


def test_a_prompt_has_80_tags_and_its_own_order() -> None:
    prompts = [prompt(number) for number in range(2000)]
    assert {len(text.split(", ")) for text in prompts} == {80}
    assert len(set(prompts)) == 2000


def test_every_operation_is_measured(service: MeasuredService) -> None:
    values = operations.measure(service, waiting=6, owners=3, rounds=3)
    assert len(values) == len(operations.COLUMNS)
    assert all(value > 0 for value in values)
    jobs = [
        job
        for owner in range(3)
        for job in service.call("GET", "/jobs?status=queued&limit=100", owner=owner)["items"]
    ]
    assert len(jobs) == 6  # none of the measured steps has changed the number


def test_load_tells_requests_a_second_and_their_cost(service: MeasuredService) -> None:
    accepted, dry = load.measure(service, requests=40)
    assert accepted.startswith("accepted by one process, 80 tags")
    assert "ms of CPU each" in dry
    assert len(service.call("GET", "/jobs?limit=100")["items"]) > 0


def test_waiting_clients_get_their_pictures(service: MeasuredService) -> None:
    line = waiters.measure(service, clients=20, rate=50)
    assert "50 jobs a second: 20 with their picture; answered after" in line


def test_listeners_hear_the_end(service: MeasuredService) -> None:
    line = listeners.measure(service, listeners=12, jobs=3)
    assert line.startswith("12 of 12 listeners of 3 jobs hear the end: p50 ")


def test_the_command_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["queue", "--sizes", "3", "--part", "growth", "--rounds", "1"])
    queue.main()
    printed = capsys.readouterr().out
    assert "| 1 | 3 | " in printed
    assert "| 100 | 3 | " in printed

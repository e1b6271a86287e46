"""Tests the arithmetic of ETAs."""

import pytest

from worker.queue.eta import Eta, Throughput, forecast

ONE = Throughput(2.0, workers=1)


@pytest.mark.parametrize(
    ("position", "running", "mean_cost", "throughput", "expected"),
    [
        (0, 0, 0.0, ONE, Eta(0, 0.0, 3.0)),
        (0, 0, 4.0, ONE, Eta(0, 0.0, 3.0)),
        (3, 2, 4.0, ONE, Eta(3, 8.0, 3.0)),
        (3, 2, 4.0, Throughput(4.0, workers=2), Eta(3, 4.0, 3.0)),
        (3, 2, 0.0, ONE, Eta(3, None, 3.0)),
        (3, 2, 4.0, Throughput(), Eta(3, None, None)),
    ],
)
def test_times(
    position: int, running: int, mean_cost: float, throughput: Throughput, expected: Eta
) -> None:
    found = forecast(
        6.0, position=position, running=running, mean_cost=mean_cost, throughput=throughput
    )
    assert found == expected


def test_the_eta_is_the_sum_of_both_times() -> None:
    assert Eta(1, 2.04, 3.0).eta_seconds == 5.0
    assert Eta(1, None, 3.0).eta_seconds is None
    assert Eta().eta_seconds is None

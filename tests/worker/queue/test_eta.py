"""Waiting and own time, from measured numbers alone."""

import pytest

from worker.queue.eta import Forecast, Pace, forecast

ONE = Pace(2.0, workers=1)


@pytest.mark.parametrize(
    ("position", "running", "mean_cost", "pace", "expected"),
    [
        (0, 0, None, ONE, Forecast(0, 0.0, 3.0)),
        (0, 0, 4.0, ONE, Forecast(0, 0.0, 3.0)),
        (3, 2, 4.0, ONE, Forecast(3, 8.0, 3.0)),
        (3, 2, 4.0, Pace(4.0, workers=2), Forecast(3, 4.0, 3.0)),
        (3, 2, None, ONE, Forecast(3, None, 3.0)),
        (3, 2, 4.0, Pace(), Forecast(3, None, None)),
    ],
)
def test_times(
    position: int, running: int, mean_cost: float | None, pace: Pace, expected: Forecast
) -> None:
    found = forecast(6.0, position=position, running=running, mean_cost=mean_cost, pace=pace)
    assert found == expected


def test_the_sum_is_known_where_both_are() -> None:
    assert Forecast(1, 2.04, 3.0).eta_seconds == 5.0
    assert Forecast(1, None, 3.0).eta_seconds is None
    assert Forecast().eta_seconds is None

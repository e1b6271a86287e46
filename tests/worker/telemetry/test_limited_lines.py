"""One line a second of a kind, and how many were left out."""

import logging

from worker.telemetry.limited_lines import LimitedLines


def test_a_flood_of_lines_is_one_a_second() -> None:
    seconds = [0.0]
    limit = LimitedLines("bad %s", "slow", clock=lambda: seconds[0])

    def written(message: str, *args: object) -> str | None:
        record = logging.LogRecord("a", logging.INFO, "", 0, message, args, None)
        return record.getMessage() if limit.filter(record) else None

    assert written("bad %s", "first") == "bad first"
    assert [written("bad %s", number) for number in range(1000)] == [None] * 1000
    assert written("slow") == "slow"  # another kind
    assert [written("job=%s", 1), written("job=%s", 2)] == ["job=1", "job=2"]
    seconds[0] = 1.0
    assert written("bad %s", "next") == "bad next left_out=1000"
    seconds[0] = 2.0
    assert written("bad %s", "last") == "bad last"

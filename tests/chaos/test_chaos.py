"""The short drill: every kind of fault once, within a minute."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.drill import drill

SETTINGS = {
    "KIRAZURI_MAX_ATTEMPTS": "30",
    "KIRAZURI_LEASE_SECONDS": "2",
    "KIRAZURI_HEARTBEAT_SECONDS": "0.4",
    "KIRAZURI_MAINTENANCE_SECONDS": "0.3",
    "KIRAZURI_DRAIN_SECONDS": "1",
}


@pytest.mark.timeout(280)
def test_every_accepted_job_ends_once_whatever_breaks() -> None:
    with TemporaryDirectory(prefix="kirazuri-chaos-") as folder:
        report = drill(
            Path(folder),
            seed=7,
            jobs=60,
            faults=12,
            pause=1.0,
            outage=3,
            settings=SETTINGS,
            bound=60,
            tell=print,
        )
    print(report)
    assert report.problems == []
    assert report.states.total() >= 76
    assert report.states["succeeded"] > 40
    assert report.faults.total() >= 13
    assert len(report.recoveries) >= 3

"""The short drill: every kind of fault that may overlap once, within a minute."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.drill import DrillPlan, drill
from tests.chaos.faults.all_faults import FAULTS
from tests.chaos.signs import promises
from tests.chaos.up_days import DAYS
from tests.support.paths import ROOT
from tests.support.queries import alert_rules
from worker.redis_io.server import find_redis_server

SETTINGS = {
    "KIRAZURI_MAX_ATTEMPTS": "30",
    "KIRAZURI_LEASE_SECONDS": "2",
    "KIRAZURI_HEARTBEAT_SECONDS": "0.4",
    "KIRAZURI_MAINTENANCE_SECONDS": "0.3",
    "KIRAZURI_DRAIN_SECONDS": "1",
}

OVERLAPPING = sum(not fault.is_apart for fault in FAULTS.values())


def test_the_operator_is_told_of_every_fault() -> None:
    assert set(promises()) == {*FAULTS, *DAYS}
    metrics = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rules = {rule["alert"] for rule in alert_rules()}
    for fault, promise in promises().items():
        assert all(f"`{name}`" in metrics for name in promise.metrics), fault
        assert set(promise.alerts) <= rules, fault


@pytest.mark.timeout(280)
def test_every_accepted_job_ends_once_whatever_breaks() -> None:
    with TemporaryDirectory(prefix="kirazuri-chaos-") as folder:
        plan = DrillPlan(
            seed=7,
            settings=SETTINGS,
            redis_server=find_redis_server(),
            jobs=60,
            overlapping=OVERLAPPING,
            pause=0.6,
            one_by_one=(),
            bound=60,
        )
        report = drill(Path(folder), plan, tell=print)
    print(report)
    assert report.problems == []
    assert report.states.total() >= 76
    assert report.states["succeeded"] > 40
    assert report.faults.total() + len(report.skipped) >= OVERLAPPING
    assert report.takeovers

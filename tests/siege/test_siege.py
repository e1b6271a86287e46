"""The short siege: what does not depend on the machine. `make siege` judges the times too."""

from collections.abc import Iterator

import pytest

from tests.siege.hostile import ATTACKS
from tests.siege.service import BesiegedService, besieged_service
from tests.siege.siege import attack
from tests.siege.units import MOST, longest_work

SECONDS = (1.5, 6, 24)
"""An attack is repeated for longer if the hostile client was too slow to be refused."""

REFUSALS = {
    "tiny chunks": {"401", "413"},
    "endless bodies": {"401"},
    "many keys": {"401"},
    "other bodies": {"401"},
    "thin pictures": {"401"},
    "held bodies": {"401"},
    "all connections": {"200"},
    "two readings": {"400"},
}
"""Answers that each kind of hostile client gets, among others."""


@pytest.fixture(scope="module")
def service() -> Iterator[BesiegedService]:
    with besieged_service("tests.siege.units") as running:
        yield running


@pytest.mark.timeout(280)
def test_an_honest_client_is_served_and_the_service_stays_small(service: BesiegedService) -> None:
    before = service.resident_bytes()
    broken: list[str] = []
    for kind in ATTACKS:
        for seconds in SECONDS:
            found = attack(service, [kind], seconds=seconds, before=before)
            print(found.row())
            broken += found.broken(is_timed=False)
            if REFUSALS[kind] <= set(found.answers):
                break
        if missing := REFUSALS[kind] - set(found.answers):
            broken.append(f"{kind}: no answer {missing} among {dict(found.answers)}")
    work = longest_work(service)
    print(work)
    broken += [
        f"{unit}: {work[unit]} in one go, at most {MOST[unit]}"
        for unit in MOST
        if work[unit] > MOST[unit]
    ]
    assert broken == []
    assert work["events of the HTTP parser"] > 2  # the attacks were counted
    assert "Traceback" not in service.log.read_text(encoding="utf-8", errors="replace")

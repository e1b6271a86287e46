"""Metrics of a running service."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import httpx2
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from tests.support.waiting import wait_until

UNSEEN = (
    "kirazuri_device_memory_bytes",
    "kirazuri_device_memory_size_bytes",
    "kirazuri_policy_refusals_total",
)
"""These have no series: there is no GPU, and no request is refused by the policy."""


_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([\w, ]*)\|", re.MULTILINE)


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every metric in docs/metrics.md, by name."""
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    return {
        name: (kind, {label.strip() for label in labels.split(",") if label.strip()})
        for name, kind, labels in _ROW.findall(page)
    }


def all_families(service: httpx2.Client) -> dict[str, Metric]:
    """Every metric family, by the name that queries use."""
    text = service.get("/metrics").text
    return {
        family.name + "_total" * (family.type == "counter"): family
        for family in text_string_to_metric_families(text)
    }


def families(service: httpx2.Client) -> dict[str, Metric]:
    """The metric families of the service, without those of every process."""
    return {
        name: family for name, family in all_families(service).items() if "process_" not in name
    }


def eventually(
    service: httpx2.Client, condition: Callable[[dict[str, Metric]], bool]
) -> dict[str, Metric]:
    """Wait until the condition holds, which a heartbeat of the worker brings about."""
    deadline = time.monotonic() + 120
    while not condition(found := families(service)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    """The sum of a family's samples with these labels."""
    return sum(
        sample.value
        for sample in family.samples
        if sample.name == family.name + suffix and labels.items() <= sample.labels.items()
    )


def await_heartbeats(service: httpx2.Client) -> None:
    """Wait until all workers have told what they did before this call.

    That is what the API shows of them, such as their forwards; their own metrics come more rarely.
    """
    now = datetime.now(UTC)

    def are_newer() -> bool:
        workers = service.get("/capabilities").json()["workers"]
        return all(datetime.fromisoformat(worker["seen_at"]) > now for worker in workers)

    wait_until(are_newer)


def settled(service: httpx2.Client) -> dict[str, Metric]:
    """The families with everything that the worker did before this call.

    The worker may have collected the next numbers before the call, but not the ones after them.
    """
    for _ in range(2):
        before = _spent(service)
        eventually(service, partial(_has_sent, service, before))
    return families(service)


def _spent(service: httpx2.Client) -> float:
    """The worker's CPU time, which changes with every heartbeat."""
    return value(all_families(service)["kirazuri_worker_process_cpu_seconds_total"], "_total")


def _has_sent(service: httpx2.Client, before: float, _: dict[str, Metric]) -> bool:
    return _spent(service) != before

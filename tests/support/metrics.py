"""Metrics of a running service."""

import re
import time
from collections.abc import Callable
from functools import partial

import httpx2
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT

UNSEEN = (
    "kirazuri_device_memory_bytes",
    "kirazuri_device_memory_size_bytes",
    "kirazuri_policy_refusals_total",
)
"""No series of these: there is no GPU here, and nobody asks for what is refused."""


_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([\w, ]*)\|", re.MULTILINE)


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name -> (type, labels), as the page has it."""
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    return {
        name: (kind, {label.strip() for label in labels.split(",") if label.strip()})
        for name, kind, labels in _ROW.findall(page)
    }


def all_families(service: httpx2.Client) -> dict[str, Metric]:
    """Every family under the name that queries use."""
    text = service.get("/metrics").text
    return {
        family.name + "_total" * (family.type == "counter"): family
        for family in text_string_to_metric_families(text)
    }


def families(service: httpx2.Client) -> dict[str, Metric]:
    """Those of ours, without what is measured of every process."""
    return {
        name: family for name, family in all_families(service).items() if "process_" not in name
    }


def eventually(
    service: httpx2.Client, condition: Callable[[dict[str, Metric]], bool]
) -> dict[str, Metric]:
    """The families once the workers' numbers have come round."""
    deadline = time.monotonic() + 30
    while not condition(found := families(service)):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    return found


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    """The sum of a family's samples with these labels."""
    return sum(
        sample.value
        for sample in family.samples
        if sample.name == family.name + suffix and labels.items() <= sample.labels.items()
    )


def settled(service: httpx2.Client) -> dict[str, Metric]:
    """The families with all that the worker did before this call.

    What it sends next may have been gathered before; what it sends then was not.
    """
    for _ in range(2):
        before = _spent(service)
        eventually(service, partial(_has_sent, service, before))
    return families(service)


def _spent(service: httpx2.Client) -> float:
    """The worker's CPU time, another one whenever it sends its numbers."""
    return value(all_families(service)["kirazuri_worker_process_cpu_seconds_total"], "_total")


def _has_sent(service: httpx2.Client, before: float, _: dict[str, Metric]) -> bool:
    return _spent(service) != before

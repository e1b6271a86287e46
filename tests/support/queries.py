"""Every query of the dashboard and of the alert rules, and the names of metrics in them."""

import json
from typing import Any

import promql_parser
import yaml

from tests.support.paths import ROOT

DASHBOARD = ROOT / "docker/grafana/dashboards/kirazuri.json"
ALERTS = ROOT / "docker/prometheus/alerts.yml"

_SUFFIXES = ("_bucket", "_sum", "_count")


def dashboard() -> Any:
    """The dashboard as Grafana reads it."""
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def alert_rules() -> list[Any]:
    """The rules of all groups."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    """All queries, with Grafana's interval filled in."""
    panels = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    exprs = [*panels, *(rule["expr"] for rule in alert_rules())]
    return [expr.replace("$__rate_interval", "5m") for expr in exprs]


def selected(query: str) -> list[tuple[str, set[str]]]:
    """The metrics of a query, with the labels that select their series."""
    found: list[tuple[str, set[str]]] = []

    def collect(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((str(node.name), {matcher.name for matcher in node.matchers.matchers}))
        return True

    promql_parser.walk(promql_parser.parse(query), collect)
    return found


def family_of(name: str) -> str:
    """The metric that a series belongs to, as docs/metrics.md names it."""
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and not name.endswith("_total"):
            return name.removesuffix(suffix)
    return name

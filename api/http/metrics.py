"""Prometheus metrics of this API process: requests, problems, event streams."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """Metrics that one API process measures itself."""

    def __init__(self, version: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # they double the series
        self.registry = CollectorRegistry()
        build = Gauge(
            "kirazuri_build_info",
            "1, with the version as a label.",
            ["version"],
            registry=self.registry,
        )
        build.labels(version).set(1)
        # Up to the start of the response, because a stream may last for minutes.
        self._latency = Histogram(
            "kirazuri_http_request_seconds",
            "Seconds until the response starts.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._problems = Counter(
            "kirazuri_http_problems",
            "Refused and failed requests, by the code of the problem.",
            ["code"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "kirazuri_policy_refusals",
            "Requests that the policy refused, by rule.",
            ["rule"],
            registry=self.registry,
        )
        self.event_streams = Gauge(
            "kirazuri_event_streams", "Open event streams.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def observe(self, seconds: float, method: str, *, route: str, status: int) -> None:
        """Count one response; `route` is the path template, not the path."""
        known = method if method in _METHODS else "other"
        self._latency.labels(known, route, str(status)).observe(seconds)

    def count_problem(self, code: str) -> None:
        """Count one error response."""
        self._problems.labels(code).inc()

    def count_refusal(self, rule: str) -> None:
        """Count one request that the policy blocked; `rule` is the name of a policy rule."""
        self._refusals.labels(rule).inc()

"""Prometheus text: HTTP latencies as measured here, jobs and engines as Redis knows them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from worker.forecast import Promises
from worker.job import WorkerStatus
from worker.outbox import OutboxState

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class HttpMetrics:
    """Latencies of one application, until the answer starts: a stream may last for minutes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._latency = Histogram(
            "kirazuri_http_request_seconds",
            "Time until the answer starts.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )

        self.event_streams = Gauge(
            "kirazuri_event_streams", "Listeners to jobs' events.", registry=self.registry
        )

    def observe(self, seconds: float, method: str, *, route: str, status: int) -> None:
        """Count one answer; `route` is the path template, never the path."""
        self._latency.labels(method, route, str(status)).observe(seconds)


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """What Redis told just now; None where it did not answer."""

    depth: tuple[int, int]
    workers: Sequence[WorkerStatus]
    totals: Mapping[str, int]
    promises: Promises
    outbox: OutboxState


class QueueCollector(Collector):
    """Turns one snapshot into metrics; asks nobody."""

    def __init__(self, snapshot: QueueSnapshot | None) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """The families, in the order they are printed."""
        snapshot = self._snapshot
        yield _gauge("kirazuri_queue_up", "1 if Redis answers.", 0 if snapshot is None else 1)
        if snapshot is None:
            return
        waiting, running = snapshot.depth
        yield _gauge("kirazuri_queue_depth", "Jobs that wait.", waiting)
        yield _gauge("kirazuri_jobs_running", "Jobs that workers have in hand.", running)
        jobs = CounterMetricFamily("kirazuri_jobs", "Jobs by what befell them.", labels=["event"])
        for event, count in sorted(snapshot.totals.items()):
            jobs.add_metric([event], count)
        yield jobs
        promises = snapshot.promises
        yield SummaryMetricFamily(
            "kirazuri_job_seconds",
            "From submission to the end, of succeeded jobs that were told a time.",
            count_value=promises.jobs,
            sum_value=promises.took_seconds,
        )
        yield SummaryMetricFamily(
            "kirazuri_eta_error_seconds",
            "By how much the time told at submission was off, either way.",
            count_value=promises.jobs,
            sum_value=promises.error_seconds,
        )
        yield from _webhooks(snapshot.outbox)
        yield from _engines(snapshot.workers)


def _webhooks(outbox: OutboxState) -> Iterable[Metric]:
    """What waits grows late when no sender runs, or when all receivers of one are slow."""
    yield _gauge("kirazuri_webhooks_pending", "Webhooks to be sent or tried again.", outbox.pending)
    yield _gauge(
        "kirazuri_webhooks_late_seconds",
        "How long ago the next webhook should have been sent.",
        outbox.overdue_seconds,
    )
    attempts = CounterMetricFamily(
        "kirazuri_webhook_attempts", "Attempts to send a webhook.", labels=["outcome"]
    )
    for outcome, count in sorted(outbox.attempts.items()):
        attempts.add_metric([outcome], count)
    yield attempts


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)


def _engines(workers: Sequence[WorkerStatus]) -> Iterable[Metric]:
    """Per worker, because a restarted one counts from zero."""
    seen = GaugeMetricFamily(
        "kirazuri_worker_warm", "1 if the worker's model is loaded.", labels=["worker", "device"]
    )
    forwards = CounterMetricFamily(
        "kirazuri_engine_forwards", "Model calls, each a batch.", labels=["worker"]
    )
    evaluations = CounterMetricFamily(
        "kirazuri_engine_evaluations", "Pictures advanced by those calls.", labels=["worker"]
    )
    shortages = CounterMetricFamily(
        "kirazuri_engine_out_of_memory",
        "Model calls that did not fit and were halved.",
        labels=["worker"],
    )
    step = GaugeMetricFamily(
        "kirazuri_engine_step_seconds", "Age of the step under way, 0 between.", labels=["worker"]
    )
    unstored = GaugeMetricFamily(
        "kirazuri_worker_unstored_images", "Pictures that wait to be stored.", labels=["worker"]
    )
    for worker in workers:
        unstored.add_metric([worker.name], worker.details.get("unstored", 0))
        shortages.add_metric([worker.name], worker.details.get("shortages", 0))
        step.add_metric([worker.name], worker.details.get("step_seconds", 0))
        seen.add_metric([worker.name, worker.device], int(worker.is_warm))
        forwards.add_metric([worker.name], worker.forwards)
        evaluations.add_metric([worker.name], worker.evaluations)
    yield from (seen, forwards, evaluations, shortages, step, unstored)
    calls = sum(worker.forwards for worker in workers)
    if calls:
        yield _gauge(
            "kirazuri_engine_mean_batch",
            "Pictures per model call since the workers started.",
            sum(worker.evaluations for worker in workers) / calls,
        )


def render(metrics: HttpMetrics, snapshot: QueueSnapshot | None) -> bytes:
    """Everything as Prometheus text, format 0.0.4."""
    queue = CollectorRegistry()
    queue.register(QueueCollector(snapshot))
    return generate_latest(metrics.registry) + generate_latest(queue)

"""Renders `/metrics`: the API process, the queue and the workers as Prometheus text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from api.http.metrics import HttpMetrics
from worker.job import WorkerStatus
from worker.queue.counters import Counters
from worker.queue.eta import EtaAccuracy
from worker.queue.outbox import OutboxState
from worker.redis_io.server_faults import FAULTS, ServerState
from worker.telemetry.background import FAILURES


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The state in Redis; `worker_texts` maps worker names to their own metrics as text."""

    depth: tuple[int, int]
    limit: int
    workers: Sequence[WorkerStatus]
    checkpoints_without_worker: int
    worker_texts: Mapping[str, str]
    counters: Counters
    outbox: OutboxState
    server: ServerState


class QueueCollector(Collector):
    """Converts one snapshot into metrics; None if Redis does not answer."""

    def __init__(self, snapshot: QueueSnapshot | None) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """All metric families, in output order."""
        snapshot = self._snapshot
        yield _counter(
            "kirazuri_background_task_failures",
            "Failures of a background task of this process, which starts again.",
            "task",
            FAILURES,
        )
        yield _gauge(
            "kirazuri_queue_up",
            "1 if Redis answers, without which there are no metrics of jobs and workers.",
            0 if snapshot is None else 1,
        )
        if snapshot is None:
            return
        waiting, running = snapshot.depth
        yield _gauge("kirazuri_queue_depth", "Waiting jobs.", waiting)
        yield _gauge("kirazuri_queue_limit", "Maximum number of waiting jobs.", snapshot.limit)
        yield _gauge("kirazuri_jobs_running", "Running jobs.", running)
        yield _gauge(
            "kirazuri_checkpoints_without_worker",
            "Checkpoints whose jobs wait because no worker has them.",
            snapshot.checkpoints_without_worker,
        )
        yield from _server(snapshot.server)
        yield from _jobs(snapshot.counters)
        yield from _eta_accuracy(snapshot.counters.eta_accuracy)
        yield from _webhooks(snapshot.outbox)
        yield from _workers(snapshot.workers)
        yield from _merged(snapshot.worker_texts)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(
    name: str, documentation: str, label: str, counts: Mapping[str, float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _server(server: ServerState) -> Iterable[Metric]:
    """Whether Redis may be trusted with jobs and has room for them."""
    yield _gauge(
        "kirazuri_redis_memory_ratio",
        "Used share of the maxmemory of Redis, 0 without a limit.",
        server.used_memory,
    )
    found = {fault.code for fault in server.faults}
    faults = GaugeMetricFamily(
        "kirazuri_redis_fault",
        "1 if Redis has this fault: docs/operating.md explains them.",
        labels=["fault"],
    )
    for code in FAULTS:
        faults.add_metric([code], int(code in found))
    yield faults


def _jobs(counters: Counters) -> Iterable[Metric]:
    yield _gauge(
        "kirazuri_queue_oldest_seconds",
        "Age of the oldest waiting job, 0 if none waits.",
        counters.oldest_queued_seconds,
    )
    yield CounterMetricFamily("kirazuri_jobs_accepted", "Accepted jobs.", value=counters.accepted)
    yield _counter(
        "kirazuri_jobs_finished",
        "Ended jobs by status: succeeded, failed, cancelled.",
        "status",
        counters.finished,
    )
    yield _counter(
        "kirazuri_jobs_failed", "Failed jobs by the code of their error.", "code", counters.failures
    )
    yield _counter(
        "kirazuri_job_retries", "Jobs returned to the queue, by reason.", "reason", counters.retries
    )
    waits = HistogramMetricFamily(
        "kirazuri_job_wait_seconds", "Seconds from acceptance until a worker starts.", labels=[]
    )
    waits.add_metric([], list(counters.waits.counts), counters.waits.total)
    yield waits
    durations = HistogramMetricFamily(
        "kirazuri_job_duration_seconds", "Seconds from acceptance to the end.", labels=["status"]
    )
    for status, histogram in counters.durations.items():
        durations.add_metric([status], list(histogram.counts), histogram.total)
    yield durations


def _eta_accuracy(accuracy: EtaAccuracy) -> Iterable[Metric]:
    """Error divided by actual seconds is the relative error of the estimates."""
    yield SummaryMetricFamily(
        "kirazuri_eta_actual_seconds",
        "Seconds from acceptance to the end, for succeeded jobs with an estimate.",
        count_value=accuracy.jobs,
        sum_value=accuracy.took_seconds,
    )
    yield SummaryMetricFamily(
        "kirazuri_eta_error_seconds",
        "Absolute error of the estimate at submission, in seconds.",
        count_value=accuracy.jobs,
        sum_value=accuracy.error_seconds,
    )


def _webhooks(outbox: OutboxState) -> Iterable[Metric]:
    """Webhooks are late if no sender runs or all receivers are slow."""
    yield _gauge("kirazuri_webhooks_pending", "Webhooks to send or retry.", outbox.pending)
    yield _gauge(
        "kirazuri_webhooks_late_seconds",
        "Seconds that the next webhook is overdue; grows if no sender runs.",
        outbox.overdue_seconds,
    )
    yield _counter(
        "kirazuri_webhook_attempts",
        "Webhook attempts: delivered, retried, given_up, gone.",
        "outcome",
        outbox.attempts,
    )


def _workers(workers: Sequence[WorkerStatus]) -> Iterable[Metric]:
    """Per worker, because a restarted worker counts from zero."""
    seen = GaugeMetricFamily(
        "kirazuri_worker_warm",
        "1 if the worker takes jobs: model loaded, no stalled step, store and clock working.",
        labels=["worker", "device"],
    )
    gauges = {
        name: GaugeMetricFamily(name, documentation, labels=["worker"])
        for name, documentation in (
            ("kirazuri_worker_running_jobs", "Running jobs of the worker."),
            ("kirazuri_worker_unstored_images", "Images waiting to be stored."),
            ("kirazuri_engine_step_age_seconds", "Age of the current step, 0 between steps."),
        )
    }
    counters = {
        name: CounterMetricFamily(name, documentation, labels=["worker"])
        for name, documentation in (
            ("kirazuri_engine_forwards", "Model calls, each a batch."),
            (
                "kirazuri_engine_evaluations",
                "Images advanced by model calls; some samplers need two per step.",
            ),
            ("kirazuri_engine_out_of_memory", "Model calls that ran out of memory and were split."),
        )
    }
    for worker in workers:
        seen.add_metric([worker.name, worker.device], int(worker.is_warm))
        values = (worker.running, worker.number("unstored"), worker.number("step_seconds"))
        for gauge, value in zip(gauges.values(), values, strict=True):
            gauge.add_metric([worker.name], value)
        counts = (worker.forwards, worker.evaluations, worker.number("shortages"))
        for counter, count in zip(counters.values(), counts, strict=True):
            counter.add_metric([worker.name], count)
    yield from (seen, *gauges.values(), *counters.values())


def _merged(texts: Mapping[str, str]) -> Iterable[Metric]:
    """The workers' own metrics with the label `worker`.

    If a worker of another release has a metric under another type, that worker's is left out, and
    so is a text that cannot be read.
    """
    families: dict[str, Metric] = {}
    for worker, text in texts.items():
        for family in _families(text):
            known = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            if known.type == family.type:
                known.samples.extend(
                    sample._replace(labels={"worker": worker, **sample.labels}, timestamp=None)
                    for sample in family.samples
                )
    return families.values()


def _families(text: str) -> list[Metric]:
    try:
        return list(text_string_to_metric_families(text))
    except (ValueError, LookupError):
        return []


def render_metrics(metrics: HttpMetrics, snapshot: QueueSnapshot | None) -> bytes:
    """All metrics as Prometheus text, format 0.0.4; `snapshot` is None if Redis is down."""
    queue = CollectorRegistry()
    queue.register(QueueCollector(snapshot))
    return generate_latest(metrics.registry) + generate_latest(queue)

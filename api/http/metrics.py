"""Prometheus text: answers as measured here, jobs and workers as Redis knows them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
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

from worker.job import WorkerStatus
from worker.queue.counters import Counters
from worker.queue.eta import EtaAccuracy
from worker.queue.outbox import OutboxState

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """What one application's process measures itself."""

    def __init__(self, version: str = "") -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every one
        self.registry = CollectorRegistry()
        build = Gauge(
            "kirazuri_build_info", "1, with the version.", ["version"], registry=self.registry
        )
        build.labels(version).set(1)
        # Until the answer starts: a stream may last for minutes.
        self._latency = Histogram(
            "kirazuri_http_request_seconds",
            "Time until the answer starts.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._problems = Counter(
            "kirazuri_http_problems",
            "Requests that were refused or failed, by the code of the problem.",
            ["code"],
            registry=self.registry,
        )
        self._refusals = Counter(
            "kirazuri_policy_refusals",
            "Requests that the policy refused, by the name of the rule.",
            ["rule"],
            registry=self.registry,
        )
        self.event_streams = Gauge(
            "kirazuri_event_streams", "Listeners to jobs' events.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def observe(self, seconds: float, method: str, *, route: str, status: int) -> None:
        """Count one answer; `route` is the path template, never the path."""
        known = method if method in _METHODS else "other"
        self._latency.labels(known, route, str(status)).observe(seconds)

    def count_problem(self, code: str) -> None:
        """A request got an answer that says why there is no other."""
        self._problems.labels(code).inc()

    def count_refusal(self, rule: str) -> None:
        """The policy refused a request; `rule` is one of its rules' names."""
        self._refusals.labels(rule).inc()


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """What Redis told just now; `worker_texts` are the workers' own numbers by their names."""

    depth: tuple[int, int]
    limit: int
    workers: Sequence[WorkerStatus]
    worker_texts: Mapping[str, str]
    counters: Counters
    outbox: OutboxState


class QueueCollector(Collector):
    """Turns one snapshot into metrics; asks nobody. None where Redis did not answer."""

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
        yield _gauge("kirazuri_queue_limit", "Jobs that may wait.", snapshot.limit)
        yield _gauge("kirazuri_jobs_running", "Jobs that workers have in hand.", running)
        yield from _jobs(snapshot.counters)
        yield from _promises(snapshot.counters.eta_accuracy)
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


def _jobs(counters: Counters) -> Iterable[Metric]:
    yield _gauge(
        "kirazuri_queue_oldest_seconds",
        "How long the job that has waited longest is queued, 0 where none waits.",
        counters.oldest_queued_seconds,
    )
    yield CounterMetricFamily(
        "kirazuri_jobs_accepted", "Jobs that were accepted.", value=counters.accepted
    )
    yield _counter("kirazuri_jobs_finished", "Jobs that ended.", "status", counters.finished)
    yield _counter("kirazuri_jobs_failed", "Jobs that failed, by why.", "code", counters.failures)
    yield _counter(
        "kirazuri_job_retries", "Jobs that went back to the queue.", "reason", counters.retries
    )
    waits = HistogramMetricFamily(
        "kirazuri_job_wait_seconds", "From acceptance to the first worker.", labels=[]
    )
    waits.add_metric([], list(counters.waits.counts), counters.waits.total)
    yield waits
    durations = HistogramMetricFamily(
        "kirazuri_job_duration_seconds", "From acceptance to the end.", labels=["status"]
    )
    for status, spread in counters.durations.items():
        durations.add_metric([status], list(spread.counts), spread.total)
    yield durations


def _promises(promises: EtaAccuracy) -> Iterable[Metric]:
    """The second divided by the first is the relative error of what clients are told."""
    yield SummaryMetricFamily(
        "kirazuri_eta_actual_seconds",
        "From acceptance to the end, of succeeded jobs that were told a time.",
        count_value=promises.jobs,
        sum_value=promises.took_seconds,
    )
    yield SummaryMetricFamily(
        "kirazuri_eta_error_seconds",
        "By how much the time told at submission was off, either way.",
        count_value=promises.jobs,
        sum_value=promises.error_seconds,
    )


def _webhooks(outbox: OutboxState) -> Iterable[Metric]:
    """What waits grows late when no sender runs, or when all receivers of one are slow."""
    yield _gauge("kirazuri_webhooks_pending", "Webhooks to be sent or tried again.", outbox.pending)
    yield _gauge(
        "kirazuri_webhooks_late_seconds",
        "How long ago the next webhook should have been sent.",
        outbox.overdue_seconds,
    )
    yield _counter(
        "kirazuri_webhook_attempts", "Attempts to send a webhook.", "outcome", outbox.attempts
    )


def _workers(workers: Sequence[WorkerStatus]) -> Iterable[Metric]:
    """Per worker, because a restarted one counts from zero."""
    seen = GaugeMetricFamily(
        "kirazuri_worker_warm",
        "1 if the worker takes jobs: model loaded, no step stalled, store and clock in order.",
        labels=["worker", "device"],
    )
    gauges = {
        name: GaugeMetricFamily(name, documentation, labels=["worker"])
        for name, documentation in (
            ("kirazuri_worker_running_jobs", "Jobs that the worker has in hand."),
            ("kirazuri_worker_unstored_images", "Pictures that wait to be stored."),
            ("kirazuri_engine_step_age_seconds", "Age of the step under way, 0 between."),
        )
    }
    counters = {
        name: CounterMetricFamily(name, documentation, labels=["worker"])
        for name, documentation in (
            ("kirazuri_engine_forwards", "Model calls, each a batch."),
            ("kirazuri_engine_evaluations", "Pictures advanced by those calls."),
            ("kirazuri_engine_out_of_memory", "Model calls that did not fit and were halved."),
        )
    }
    for worker in workers:
        seen.add_metric([worker.name, worker.device], int(worker.is_warm))
        details = worker.details
        values = (worker.running, details.get("unstored", 0), details.get("step_seconds", 0))
        for gauge, value in zip(gauges.values(), values, strict=True):
            gauge.add_metric([worker.name], value)
        counts = (worker.forwards, worker.evaluations, details.get("shortages", 0))
        for counter, count in zip(counters.values(), counts, strict=True):
            counter.add_metric([worker.name], count)
    yield from (seen, *gauges.values(), *counters.values())


def _merged(texts: Mapping[str, str]) -> Iterable[Metric]:
    """The workers' own families, each once, every sample with its worker.

    A family that a worker of another release has under another type is left out for that worker.
    """
    families: dict[str, Metric] = {}
    for worker, text in texts.items():
        for family in text_string_to_metric_families(text):
            known = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            if known.type == family.type:
                known.samples.extend(
                    sample._replace(labels={"worker": worker, **sample.labels})
                    for sample in family.samples
                )
    return families.values()


def render(metrics: HttpMetrics, snapshot: QueueSnapshot | None) -> bytes:
    """Everything as Prometheus text, format 0.0.4."""
    queue = CollectorRegistry()
    queue.register(QueueCollector(snapshot))
    return generate_latest(metrics.registry) + generate_latest(queue)

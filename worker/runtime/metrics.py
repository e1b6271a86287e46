"""Measures a worker, as Prometheus metrics.

A worker listens on no port. Its metrics travel to Redis as text with its heartbeats, and the API
shows those of all workers.
"""

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from model.engine.protocol import CompiledState, EngineStats

_MAX_SHAPES = 16
"""Image sizes with their own label, the first that a worker meets; clients may ask for many."""

_STEP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class WorkerMetrics:
    """All metrics of one worker; any thread may update them."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # would double the series
        self._registry = CollectorRegistry()
        self._shapes: set[str] = set()
        counter = partial(Counter, registry=self._registry)
        gauge = partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self._steps = counter(
            "kirazuri_engine_steps", "Sampling steps of images; their rate is steps per second."
        )
        self._busy = counter(
            "kirazuri_engine_busy_seconds",
            "Time that the engine had work; its rate is the busy share.",
        )
        self._step_seconds = histogram(
            "kirazuri_engine_step_duration_seconds",
            "Model calls by image size, such as 832x1216.",
            ["shape"],
            buckets=_STEP_BUCKETS,
        )
        self._batch = histogram(
            "kirazuri_engine_batch_images", "Images in a model call.", buckets=_BATCH_BUCKETS
        )
        self._stage = histogram(
            "kirazuri_job_stage_seconds",
            "Time of a job in the engine by stage: encode (prompts), denoise, decode (images).",
            ["stage"],
            buckets=_STAGE_BUCKETS,
        )
        self._encode = histogram(
            "kirazuri_image_encode_seconds",
            "Encoding pixels to an image file.",
            ["format"],
            buckets=_FILE_BUCKETS,
        )
        self._store = histogram(
            "kirazuri_image_store_seconds",
            "Writing a file to the image store, successful attempts only.",
            buckets=_FILE_BUCKETS,
        )
        self._store_failures = counter(
            "kirazuri_image_store_failures", "Failed attempts to store or read an image."
        )
        self._memory = gauge(
            "kirazuri_device_memory_bytes",
            "GPU memory: allocated and reserved by the worker, free for all processes.",
            ["state"],
        )
        self._memory_size = gauge(
            "kirazuri_device_memory_size_bytes",
            "Memory of the worker's GPU. Neither memory metric has samples on the CPU.",
            ["device"],
        )
        self._add_compiled()
        ProcessCollector(namespace="kirazuri_worker", registry=self._registry)

    def _add_compiled(self) -> None:
        self._compiled = Gauge(
            "kirazuri_engine_compiled",
            "1 if the worker computes pictures by compiled code, 0 if eagerly.",
            registry=self._registry,
        )
        self._compiled_failures = Counter(
            "kirazuri_engine_compiled_failures",
            "Failures of compiled code or of its compilation; the worker continues eagerly.",
            registry=self._registry,
        )
        self._counted_failures = 0

    def text(self) -> str:
        """All metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry).decode()

    def observe_step(self, seconds: float, stats: EngineStats) -> None:
        """Count an engine step of this duration; `stats` has its model calls."""
        self._busy.inc(seconds)
        for forward in stats.latest:
            shape = self._shape(f"{forward.width}x{forward.height}")
            self._step_seconds.labels(shape).observe(forward.seconds)
            self._batch.observe(forward.images)
        if stats.memory is not None:
            self._memory.labels("allocated").set(stats.memory.allocated)
            self._memory.labels("reserved").set(stats.memory.reserved)
            self._memory.labels("free").set(stats.memory.free)
            self._memory_size.labels(stats.memory.device).set(stats.memory.size)

    def observe_compiled(self, state: CompiledState) -> None:
        """Whether compiled code is used, and how often it has failed."""
        self._compiled.set(state.name == "ready")
        self._compiled_failures.inc(state.failures - self._counted_failures)
        self._counted_failures = state.failures

    def count_sampling_steps(self, steps: int) -> None:
        """Count sampling steps, each of one image."""
        self._steps.inc(steps)

    def observe_stage(self, name: str, seconds: float) -> None:
        """A job finished a stage: encode, denoise or decode."""
        self._stage.labels(name).observe(seconds)

    def observe_encoding(self, seconds: float, image_format: str) -> None:
        """An image was encoded to a file."""
        self._encode.labels(image_format).observe(seconds)

    def observe_storing(self, seconds: float) -> None:
        """A file was written to the image store."""
        self._store.observe(seconds)

    def count_store_failure(self) -> None:
        """An attempt to store or read an image failed."""
        self._store_failures.inc()

    def _shape(self, shape: str) -> str:
        if shape not in self._shapes:
            if len(self._shapes) >= _MAX_SHAPES:
                return "other"
            self._shapes.add(shape)
        return shape

"""A worker's numbers, as Prometheus text that travels in Redis with its heartbeats.

A worker listens on nothing, and any number of them may run anywhere: the API shows what they said.
Knows neither jobs nor the engine's inside.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from model.engine.protocol import EngineStats

_MOST_SHAPES = 16
"""Sizes that get a label of their own, the first that a worker meets; a client may ask for many."""

_STEP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STAGE_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BATCH_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class WorkerMetrics:
    """All that one worker measures; may be told by any thread."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every one
        self._registry = registry = CollectorRegistry()
        self._shapes: set[str] = set()
        self._steps = Counter(
            "kirazuri_engine_steps", "Sampling steps of pictures.", registry=registry
        )
        self._busy = Counter(
            "kirazuri_engine_busy_seconds", "Time that the engine had work.", registry=registry
        )
        self._step_seconds = Histogram(
            "kirazuri_engine_step_duration_seconds",
            "Model calls, each a batch of pictures of one size.",
            ["shape"],
            buckets=_STEP_BUCKETS,
            registry=registry,
        )
        self._batch = Histogram(
            "kirazuri_engine_batch_images",
            "Pictures in a model call.",
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self._stage = Histogram(
            "kirazuri_job_stage_seconds",
            "Time of a job in the engine: its prompts encoded, denoised, its pictures decoded.",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=registry,
        )
        self._encode = Histogram(
            "kirazuri_image_encode_seconds",
            "Pixels to a file.",
            ["format"],
            buckets=_FILE_BUCKETS,
            registry=registry,
        )
        self._store = Histogram(
            "kirazuri_image_store_seconds",
            "A file to the image store, the try that worked.",
            buckets=_FILE_BUCKETS,
            registry=registry,
        )
        self._store_failures = Counter(
            "kirazuri_image_store_failures",
            "Tries to store or read a picture that failed.",
            registry=registry,
        )
        self._memory = Gauge(
            "kirazuri_device_memory_bytes",
            "Memory of the worker's GPU: allocated and reserved by it, free for all.",
            ["state"],
            registry=registry,
        )
        self._memory_size = Gauge(
            "kirazuri_device_memory_size_bytes",
            "All memory of the worker's GPU.",
            ["device"],
            registry=registry,
        )
        ProcessCollector(namespace="kirazuri_worker", registry=registry)

    def text(self) -> str:
        """Everything in the text format 0.0.4."""
        return generate_latest(self._registry).decode()

    def engine_step(self, seconds: float, stats: EngineStats) -> None:
        """The engine worked for so long; `stats` tells which model calls that were."""
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

    def sampled(self, steps: int) -> None:
        """So many steps of pictures are done."""
        self._steps.inc(steps)

    def stage(self, name: str, seconds: float) -> None:
        """A job has been through a stage: encode, denoise or decode."""
        self._stage.labels(name).observe(seconds)

    def encoded(self, seconds: float, image_format: str) -> None:
        """A picture became a file."""
        self._encode.labels(image_format).observe(seconds)

    def stored(self, seconds: float) -> None:
        """A file is in the image store."""
        self._store.observe(seconds)

    def store_failed(self) -> None:
        """The image store took or gave nothing."""
        self._store_failures.inc()

    def _shape(self, shape: str) -> str:
        if shape not in self._shapes:
            if len(self._shapes) >= _MOST_SHAPES:
                return "other"
            self._shapes.add(shape)
        return shape

"""Describes a worker for its heartbeats: what it runs, whether it takes jobs, how fast it is."""

from datetime import UTC, datetime

from worker.job import WorkerStatus
from worker.runtime.slot import WorkerParts
from worker.settings import Settings


def worker_status(
    parts: WorkerParts, settings: Settings, *, running: int, is_accepting: bool
) -> WorkerStatus:
    """The status of a worker with `running` jobs.

    `is_accepting` is what the control loop knows: the clock is right and nobody stopped the worker.
    """
    engine, stats, about = parts.engine, parts.engine.stats, parts.engine.description
    step_seconds = engine.step_seconds()
    is_stalled = step_seconds > settings.stall_seconds
    return WorkerStatus(
        name=parts.name,
        is_warm=engine.is_warm and is_accepting and not is_stalled and not parts.publisher.is_down,
        seen_at=datetime.now(UTC),
        card=str(about.get("card", settings.card)),
        device=str(about.get("device", settings.device)),
        precision=str(about.get("precision", settings.precision)),
        running=running,
        forwards=stats.forwards,
        evaluations=stats.evaluations,
        recipe=parts.recipe() if engine.is_warm else None,
        details={
            **about,
            "rows": stats.rows,
            "forward_seconds": round(stats.forward_seconds, 3),
            "shortages": stats.shortages,
            "step_seconds": round(step_seconds, 1),
            "unstored": parts.publisher.pending,
            "cost_per_second": parts.throughput.update(engine.busy_seconds),
        },
    )

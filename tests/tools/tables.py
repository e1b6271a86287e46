"""`make docs` generates tables of the pages, and .env.example, from the code."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo

from api.http.metrics import HttpMetrics
from api.http.problem_types import JOB_PROBLEMS, PROBLEM_TYPES
from api.http.queue_metrics import QueueCollector, QueueSnapshot
from tests.support.paths import ROOT
from tests.tools.command_page import command_sections, exit_codes_table
from worker.job_events import EVENTS
from worker.queue.counters import Counters, Histogram
from worker.queue.eta import EtaAccuracy
from worker.queue.outbox import OutboxState
from worker.redis_io.server_faults import ServerState
from worker.runtime.metrics import WorkerMetrics
from worker.settings import Settings
from worker.wrong_settings import limits_of

ENV_EXAMPLE = ROOT / ".env.example"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"KIRAZURI_{name.upper()}"


def _default(field: FieldInfo) -> str:
    return "" if field.default is None else str(field.default)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    names = list(head)
    lines = [f"| {' | '.join(map(str, cells))} |\n" for cells in (names, *rows)]
    lines.insert(1, f"|{'---|' * len(names)}\n")
    return re.sub(r"(?<=\|) +(?=\|)", " ", "".join(lines))


def settings_table() -> str:
    """A row for every setting."""
    return _table(
        ("variable", "default", "limits", "what it is"),
        (
            (
                f"`{variable(name)}`",
                f"`{_default(field)}`" if _default(field) else "",
                limits_of(field),
                field.description,
            )
            for name, field in Settings.model_fields.items()
        ),
    )


def problems_table() -> str:
    """A row for every problem that a response may have."""
    return _table(
        ("status", "code", "title", "what it means"),
        sorted(
            (kind.status, f"`{kind.code}`", kind.title, kind.explanation)
            for kind in PROBLEM_TYPES.values()
            if kind not in JOB_PROBLEMS
        ),
    )


def job_problems_table() -> str:
    """A row for every error of a failed job."""
    return _table(
        ("code", "title", "what it means"),
        ((f"`{kind.code}`", kind.title, kind.explanation) for kind in JOB_PROBLEMS),
    )


def events_table() -> str:
    """A row for every event of a job."""
    return _table(
        ("event", "data", "meaning"),
        ((f"`{name}`", data, meaning) for name, (data, meaning) in EVENTS.items()),
    )


_NO_JOBS = Counters(
    accepted=0,
    finished={},
    failures={},
    retries={},
    waits=Histogram((("+Inf", 0),), 0),
    durations={},
    eta_accuracy=EtaAccuracy(0, 0, 0),
    oldest_queued_seconds=0,
)
_NO_REDIS = QueueSnapshot(
    depth=(0, 0),
    limit=1,
    workers=(),
    checkpoints_without_worker=0,
    worker_texts={},
    counters=_NO_JOBS,
    outbox=OutboxState(0, 0, {}),
    server=ServerState(0, ()),
)
"""An empty queue: it has all metrics, though some have no samples."""


def _families() -> Iterator[tuple[Metric, Sequence[str]]]:
    """All metrics with their labels, without those of every process."""
    own = HttpMetrics().registry
    worker = WorkerMetrics()._registry
    for registry, label in ((own, ()), (worker, ("worker",))):
        for collector in dict.fromkeys(registry._collector_to_names):
            if isinstance(collector, MetricWrapperBase):
                (family,) = collector.describe()
                yield family, (*label, *collector._labelnames)
    for family in QueueCollector(_NO_REDIS).collect():
        yield family, getattr(family, "_labelnames", ())


def metrics_table() -> str:
    """A row for every metric, by name."""
    return _table(
        ("metric", "type", "labels", "meaning"),
        sorted(
            (
                f"`{family.name}{'_total' * (family.type == 'counter')}`",
                family.type,
                ", ".join(labels),
                family.documentation,
            )
            for family, labels in _families()
        ),
    )


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/settings.md": {"settings": settings_table},
    "docs/problems.md": {
        "problems": problems_table,
        "errors of jobs": job_problems_table,
        "events": events_table,
    },
    "docs/metrics.md": {"metrics": metrics_table},
    "docs/cli.md": {"exit codes": exit_codes_table, "commands": command_sections},
}
"""By page: the names of its tables, and what they contain."""


def env_example() -> str:
    """All settings with their defaults, commented out."""
    lines = [
        "# Copy to .env and uncomment what should differ from the default. See docs/settings.md."
    ]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"#{variable(name)}={_default(field)}"]
    return "\n".join(lines) + "\n"


def with_tables(page: str) -> str:
    """The text of a page of `TABLES` with new tables."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, table in TABLES[page].items():
        begin, end = f"<!-- table of {name} -->\n", "<!-- end of table -->"
        before, found, rest = text.partition(begin)
        assert found, f"{page} has no table of {name}"
        text = before + begin + table() + end + rest.partition(end)[2]
    return text


def main() -> None:
    """Write the pages and .env.example."""
    for page in TABLES:
        (ROOT / page).write_text(with_tables(page), encoding="utf-8")
    ENV_EXAMPLE.write_text(env_example(), encoding="utf-8")


if __name__ == "__main__":
    main()

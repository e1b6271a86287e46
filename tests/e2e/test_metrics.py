"""The running service exports the metrics of docs/metrics.md: names, types and labels."""

from operator import ge

import httpx2
import pytest
from prometheus_client import Metric

from tests.support.metrics import UNSEEN, all_families, documented, eventually, settled, value
from tests.support.pictures import QUALITY, finished, submit
from tests.support.queries import family_of, queries, selected

pytestmark = pytest.mark.timeout(300)


def test_exported_and_documented_metrics_are_the_same(service: httpx2.Client) -> None:
    # An error and a picture, so that all families with labels have a sample.
    assert service.get("/jobs/unknown").status_code == 404
    finished(service, submit(service, prompt=f"{QUALITY}, green hair", steps=3, num_images=2))
    found = eventually(service, lambda found: bool(value(
        found["kirazuri_image_store_seconds"], "_count") >= 2))  # fmt: skip
    exported = {
        name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for name, family in found.items()
    }
    expected = documented()
    for name in UNSEEN:
        kind, labels = expected.pop(name)
        assert exported.pop(name) == (kind, set())
        assert labels
    assert exported == expected


def test_queries_use_exported_metrics_only(service: httpx2.Client) -> None:
    exported, described = set(all_families(service)), documented()
    asked = [selection for query in queries() for selection in selected(query)]
    assert {family_of(series) for series, _ in asked} <= exported | {"up"}
    for series, labels in asked:
        if (name := family_of(series)) in described:
            assert labels <= described[name][1], series


def test_every_metric_is_shown() -> None:
    shown = {family_of(series) for query in queries() for series, _ in selected(query)}
    assert set(documented()) - shown <= {"kirazuri_build_info"}


def test_a_job_changes_its_metrics(service: httpx2.Client) -> None:
    before = settled(service)
    job = finished(
        service, submit(service, prompt=f"{QUALITY}, white hair", steps=4, resolution="128x112")
    )

    def counted(found: dict[str, Metric]) -> list[float]:
        return [
            value(found["kirazuri_engine_steps_total"], "_total") / 4,
            value(found["kirazuri_image_store_seconds"], "_count"),
            value(found["kirazuri_job_stage_seconds"], "_count") / 3,
        ]

    # The worker may collect the numbers between its last step and the end of the job.
    awaited = [count + 1 for count in counted(before)]
    after = eventually(service, lambda found: all(map(ge, counted(found), awaited)))

    def gained(name: str, suffix: str = "_count", **labels: str) -> float:
        return value(after[name], suffix, **labels) - value(before[name], suffix, **labels)

    assert gained("kirazuri_engine_steps_total", "_total") == 4
    assert gained("kirazuri_engine_step_duration_seconds", shape="128x112") >= 4
    assert gained("kirazuri_engine_batch_images", "_sum") >= 4
    assert gained("kirazuri_engine_busy_seconds_total", "_total") > 0
    for stage in ("encode", "denoise", "decode"):
        assert gained("kirazuri_job_stage_seconds", stage=stage) == 1
        reported = job["timings"][stage]
        assert gained("kirazuri_job_stage_seconds", "_sum", stage=stage) == pytest.approx(
            reported, abs=1e-3
        )
    assert gained("kirazuri_image_encode_seconds", format="png") == 1
    assert gained("kirazuri_image_store_seconds") == 1
    assert gained("kirazuri_jobs_accepted_total", "_total") == 1
    assert gained("kirazuri_jobs_finished_total", "_total", status="succeeded") == 1
    assert gained("kirazuri_job_wait_seconds") == 1
    assert gained("kirazuri_job_duration_seconds", status="succeeded") == 1


def test_processes_are_measured(service: httpx2.Client) -> None:
    text = service.get("/metrics").text
    assert "\nprocess_resident_memory_bytes " in text
    assert '\nkirazuri_worker_process_resident_memory_bytes{worker="' in text

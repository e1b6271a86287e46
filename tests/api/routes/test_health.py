"""Probes and numbers."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from tests.support.api_calls import is_problem, metrics, submit
from tests.support.api_server import Running
from tests.support.manual_worker import Hand
from worker.settings import Settings


def test_the_process_is_up(client: httpx2.Client) -> None:
    answer = client.get("/livez")
    assert answer.status_code == 200
    assert answer.json() == {"status": "alive"}


def test_ready_with_a_warm_worker(client: httpx2.Client, hand: Hand) -> None:
    hand.beat()
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready"}
    assert answer.headers["cache-control"] == "no-store"


def test_not_ready_without_workers(client: httpx2.Client) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    problem = is_problem(answer)
    assert problem["code"] == "not_ready"
    (reason,) = problem["reasons"]
    assert "worker" in reason
    assert "kirazuri-tiny" in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"is_warm": False},
        {"card": "kirazuri-v1"},
        {"seen_at": datetime.now(UTC) - timedelta(seconds=16)},
    ],
    ids=["cold", "another checkpoint", "silent"],
)
def test_a_worker_that_does_not_count(
    client: httpx2.Client, hand: Hand, changes: dict[str, object]
) -> None:
    hand.beat(**changes)
    assert client.get("/readyz").status_code == 503
    hand.beat(name="another")
    assert client.get("/readyz").status_code == 200


def test_not_ready_without_a_store(settings: Settings, hand: Hand, tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    running = Running(settings.model_copy(update={"data_dir": tmp_path}))
    running.start()
    hand.beat()
    try:
        answer = httpx2.get(f"{running.url}/readyz")
    finally:
        running.stop()
    assert answer.status_code == 503
    (reason,) = is_problem(answer)["reasons"]
    assert reason.startswith("image store")


def test_numbers_of_jobs_and_engines(client: httpx2.Client, hand: Hand) -> None:
    first, second, _ = submit(client), submit(client), submit(client)
    hand.claim(first)
    hand.finish(first, b"picture")
    hand.claim(second)
    hand.beat()
    hand.beat(name="other", forwards=10, evaluations=5, is_warm=False)
    numbers = metrics(client)
    assert numbers["kirazuri_queue_up",] == 1
    assert numbers["kirazuri_queue_depth",] == 1
    assert numbers["kirazuri_jobs_running",] == 1
    assert numbers["kirazuri_queue_limit",] == 5
    assert 0 < numbers["kirazuri_queue_oldest_seconds",] < 60
    assert numbers["kirazuri_jobs_accepted_total",] == 3
    assert numbers["kirazuri_jobs_finished_total", "succeeded"] == 1
    assert numbers["kirazuri_jobs_finished_total", "failed"] == 0
    assert numbers["kirazuri_worker_warm", "cpu", "hand"] == 1
    assert numbers["kirazuri_worker_warm", "cpu", "other"] == 0
    assert numbers["kirazuri_engine_forwards_total", "hand"] == 10
    assert numbers["kirazuri_engine_evaluations_total", "hand"] == 25
    assert numbers["kirazuri_engine_evaluations_total", "other"] == 5


def test_the_error_of_told_times_is_counted(client: httpx2.Client, hand: Hand) -> None:
    untold = submit(client)
    hand.claim(untold)
    hand.finish(untold, b"first")  # nothing was measured yet
    hand.beat(details={"cost_per_second": 1.0})
    time.sleep(1.1)  # the pace is asked for once a second
    told = submit(client)
    promised = client.get(f"/jobs/{told}").json()["eta_seconds"]
    assert promised > 0
    hand.claim(told)
    time.sleep(0.2)
    hand.finish(told, b"second")
    job = client.get(f"/jobs/{told}").json()
    ended, made = (datetime.fromisoformat(job[f"{name}_at"]) for name in ("finished", "created"))
    took = (ended - made).total_seconds()
    numbers = metrics(client)
    assert numbers["kirazuri_eta_actual_seconds_count",] == 1
    assert numbers["kirazuri_eta_error_seconds_count",] == 1
    assert numbers["kirazuri_eta_actual_seconds_sum",] == pytest.approx(took, abs=0.01)
    assert numbers["kirazuri_eta_error_seconds_sum",] == pytest.approx(
        abs(took - promised), abs=0.06
    )


def test_latencies_by_route_not_by_path(client: httpx2.Client) -> None:
    job_id = submit(client)
    before = metrics(client).get(
        ("kirazuri_http_request_seconds_count", "GET", "/jobs/{job_id}", "200"), 0
    )
    client.get(f"/jobs/{job_id}")
    client.get("/nowhere/at/all")
    numbers = metrics(client)
    name = "kirazuri_http_request_seconds_count"
    assert numbers[name, "GET", "/jobs/{job_id}", "200"] == before + 1
    assert numbers[name, "GET", "none", "404"] >= 1
    assert not any(job_id in part for key in numbers for part in key)

"""Liveness, readiness and metrics."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from tests.support.api_calls import PROMPT, read_metrics, read_problem, redis_setting, submit_job
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.queue_steps import bring_to_front
from tests.support.requests import make_request
from tests.support.waiting import wait_until
from worker.queue.job_queue import JobQueue
from worker.queue.layout import redis_keys
from worker.settings import Settings
from worker.telemetry.background import FAILURES


def test_the_process_is_up(client: httpx2.Client) -> None:
    answer = client.get("/livez")
    assert answer.status_code == 200
    assert answer.json() == {"status": "alive"}


def test_ready_with_a_warm_worker(client: httpx2.Client, worker: ManualWorker) -> None:
    worker.heartbeat()
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "warnings": []}
    assert answer.headers["cache-control"] == "no-store"


def test_not_ready_without_workers(client: httpx2.Client) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    problem = read_problem(answer)
    assert problem["code"] == "not_ready"
    (reason,) = problem["reasons"]
    assert "worker" in reason
    assert "kirazuri-tiny" in reason


def age_heartbeat(worker: ManualWorker, seconds: float) -> None:
    """Make the worker's last heartbeat older than it is."""
    left = redis_keys.HEARTBEAT_TTL_SECONDS - seconds
    worker.redis.pexpire(redis_keys.worker_key("manual-worker"), int(1000 * left))


def test_workers_that_do_not_count(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    for changes in ({"is_warm": False}, {"card": "kirazuri-v1"}):
        worker.heartbeat(**changes)
        assert client.get("/readyz").status_code == 503, changes
    worker.heartbeat()
    age_heartbeat(worker, settings.lease_seconds + 0.5)
    assert client.get("/readyz").status_code == 503
    worker.heartbeat(name="another")
    assert client.get("/readyz").status_code == 200


def test_a_worker_with_another_file_of_the_card_does_not_count(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    worker.heartbeat(details={"checkpoints": [["kirazuri-tiny", "1" * 64]]})
    assert client.get("/readyz").status_code == 503
    worker.heartbeat(details={"checkpoints": [["kirazuri-tiny", "1" * 64], ["kirazuri-tiny", ""]]})
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("is_returned", [False, True])
def test_jobs_for_a_checkpoint_that_nobody_runs_are_a_warning(
    client: httpx2.Client, worker: ManualWorker, redis_url: str, settings: Settings,
    is_returned: bool,
) -> None:  # fmt: skip
    async def admit() -> str:
        queue = JobQueue(redis_url, settings, checkpoint=("another", "a" * 64))
        job = await queue.admit(make_request())
        await queue.close()
        return job.id

    job_id = asyncio.run(admit())
    if is_returned:
        bring_to_front(worker.redis, job_id)
    worker.heartbeat()
    assert client.get("/readyz").json()["warnings"] == [
        "queue: jobs wait for another (aaaaaaaaaaaa…), which no live worker has loaded"
    ]
    assert read_metrics(client)["kirazuri_checkpoints_without_worker",] == 1
    worker.heartbeat(name="other", details={"checkpoints": [["another", "a" * 64]]})
    assert client.get("/readyz").json()["warnings"] == []
    assert read_metrics(client)["kirazuri_checkpoints_without_worker",] == 0


def test_clocks_do_not_matter(client: httpx2.Client, worker: ManualWorker) -> None:
    worker.heartbeat(seen_at=datetime.now(UTC) - timedelta(days=1))
    assert client.get("/readyz").status_code == 200


def test_a_restarted_service_waits_for_a_live_worker(
    settings: Settings, worker: ManualWorker, redis_url: str
) -> None:
    worker.heartbeat()  # the last word of a worker that is killed with the service
    with ApiServer(settings) as restarted:
        answer = httpx2.get(f"{restarted.url}/readyz", timeout=60)
        assert answer.status_code == 503
        assert "no live worker" in answer.json()["detail"]
        worker.heartbeat()
        assert httpx2.get(f"{restarted.url}/readyz", timeout=60).status_code == 200


def test_a_redis_that_may_lose_jobs(
    client: httpx2.Client, worker: ManualWorker, redis_client: "Redis"
) -> None:
    worker.heartbeat()
    redis_client.config_set("appendonly", "no")
    try:
        answer = client.get("/readyz")
        (reason,) = read_problem(answer)["reasons"]
        refused = client.post("/generate", json={"prompt": PROMPT})
        numbers = read_metrics(client)
    finally:
        redis_client.config_set("appendonly", "yes")
    assert answer.status_code == 503
    assert reason.startswith("redis: ")
    assert "appendonly" in reason
    assert refused.status_code == 503
    problem = read_problem(refused)
    assert problem["code"] == "queue_unavailable"
    assert "appendonly" in problem["detail"]
    assert numbers["kirazuri_redis_fault", "append_only_file"] == 1
    assert numbers["kirazuri_redis_fault", "eviction"] == 0
    assert numbers["kirazuri_redis_memory_ratio",] == 0
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ("limited:wrong@", "invalid username-password pair"),
        ("limited:right@", "no permissions"),
        ("", "authenticat"),
    ],
)
def test_a_redis_that_refuses_the_login(
    login: str, reason: str, settings: Settings, redis_url: str, redis_client: "Redis"
) -> None:
    redis_client.acl_setuser("limited", enabled=True, passwords=["+right"], commands=["+ping"])
    url = redis_setting(redis_url.replace("://", f"://{login}", 1))
    redis_client.config_set("requirepass", "sesame")
    try:
        with ApiServer(settings.model_copy(update={"redis_url": url})) as running:
            answer = httpx2.get(f"{running.url}/readyz", timeout=60)
            refused = httpx2.post(f"{running.url}/generate", json={"prompt": PROMPT}, timeout=60)
    finally:
        redis_client.config_set("requirepass", "")
        redis_client.acl_deluser("limited")
    (found,) = read_problem(answer)["reasons"]
    assert found.startswith("redis: Redis refuses this service: ")
    assert reason in found
    assert refused.status_code == 503
    assert "right" not in answer.text


def test_a_redis_that_refuses_a_command_within_scripts(
    settings: Settings, redis_url: str, redis_client: "Redis"
) -> None:
    redis_client.acl_setuser(
        "limited",
        enabled=True,
        passwords=["+right"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-hgetall"],
    )
    url = redis_setting(redis_url.replace("://", "://limited:right@", 1))
    try:
        with ApiServer(settings.model_copy(update={"redis_url": url})) as running:
            refused = httpx2.post(f"{running.url}/generate", json={"prompt": PROMPT}, timeout=60)
    finally:
        redis_client.acl_deluser("limited")
    assert refused.status_code == 503, refused.text
    assert "Redis refuses this service" in refused.text
    assert "hgetall" in refused.text


@pytest.mark.parametrize(
    "key",
    [redis_keys.QUEUED, redis_keys.COUNTERS, redis_keys.VIRTUAL_TIME, redis_keys.MEAN_COST],
)
def test_a_key_of_the_queue_that_another_program_changed(
    key: str, client: httpx2.Client, worker: ManualWorker, redis_client: "Redis"
) -> None:
    worker.heartbeat()
    redis_client.rpush(key, "a list")
    answers = [
        client.post("/generate", json={"prompt": PROMPT}),
        client.get("/metrics"),
        client.get("/readyz"),
    ]
    assert {answer.status_code for answer in answers} <= {200, 202, 503}
    refusals = [answer.text for answer in answers if answer.status_code == 503]
    assert refusals
    assert all("another program changed a key of the queue" in text for text in refusals)
    redis_client.delete(key)
    assert client.post("/generate", json={"prompt": PROMPT}).status_code == 202


@pytest.mark.parametrize("text", ["git", "nan", "inf"])
def test_a_number_of_the_queue_that_another_program_changed(
    text: str,
    client: httpx2.Client,
    worker: ManualWorker,
    redis_client: "Redis",
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It counts as 0, which is logged once, until a job replaces it."""
    worker.heartbeat(details={"cost_per_second": 2.0})
    counts = ["accepted", "succeeded", "waited:0.1", "waited:sum", "took_succeeded:sum"]
    counts += ["promised", "promised_took", "webhook_delivered"]
    for key in (redis_keys.MEAN_COST, redis_keys.VIRTUAL_TIME):
        redis_client.set(key, text)
    redis_client.hset(redis_keys.COUNTERS, mapping=dict.fromkeys(counts, text))
    job_id = submit_job(client)
    for path in (
        f"/jobs/{job_id}",
        f"/jobs/{job_id}",
        "/jobs",
        "/capabilities",
        "/metrics",
        "/readyz",
    ):
        assert client.get(path).status_code == 200, path
    plan = client.post("/generate?dry_run=true", json={"prompt": PROMPT})
    assert plan.status_code == 200, plan.text
    worker.claim(job_id)
    worker.finish(job_id, b"a picture")
    assert client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"
    assert float(redis_client.get(redis_keys.MEAN_COST) or 0) > 0
    assert read_metrics(client)["kirazuri_jobs_accepted_total",] == 1
    told = [record.getMessage() for record in caplog.records if "is no number" in record.message]
    assert sum(redis_keys.MEAN_COST in line for line in told) == 1


def test_a_redis_that_refuses_writes_is_not_ready(
    client: httpx2.Client, worker: ManualWorker, redis_client: "Redis"
) -> None:
    worker.heartbeat()
    redis_client.config_set("min-replicas-to-write", "1")
    try:
        (reason,) = read_problem(client.get("/readyz"))["reasons"]
        numbers = read_metrics(client)
    finally:
        redis_client.config_set("min-replicas-to-write", "0")
    assert "NOREPLICAS" in reason
    assert numbers["kirazuri_redis_fault", "writes"] == 1


def test_not_ready_without_a_store(
    settings: Settings, worker: ManualWorker, tmp_path: Path
) -> None:
    (tmp_path / "images").write_text("a file where the folder should be")
    running = ApiServer(settings.model_copy(update={"data_dir": tmp_path}))
    running.start()
    worker.heartbeat()
    try:
        answer = httpx2.get(f"{running.url}/readyz", timeout=60)
    finally:
        running.stop()
    assert answer.status_code == 503
    (reason,) = read_problem(answer)["reasons"]
    assert reason.startswith("image store")


def test_metrics_of_jobs_and_engines(client: httpx2.Client, worker: ManualWorker) -> None:
    first, second, _ = submit_job(client), submit_job(client), submit_job(client)
    worker.claim(first)
    worker.finish(first, b"picture")
    worker.claim(second)
    worker.heartbeat()
    worker.heartbeat(name="other", forwards=10, evaluations=5, is_warm=False)
    numbers = read_metrics(client)
    assert numbers["kirazuri_queue_up",] == 1
    assert numbers["kirazuri_queue_depth",] == 1
    assert numbers["kirazuri_jobs_running",] == 1
    assert numbers["kirazuri_queue_limit",] == 5
    assert 0 < numbers["kirazuri_queue_oldest_seconds",] < 60
    assert numbers["kirazuri_jobs_accepted_total",] == 3
    assert numbers["kirazuri_jobs_finished_total", "succeeded"] == 1
    assert numbers["kirazuri_jobs_finished_total", "failed"] == 0
    assert numbers["kirazuri_worker_warm", "cpu", "manual-worker"] == 1
    assert numbers["kirazuri_worker_warm", "cpu", "other"] == 0
    assert numbers["kirazuri_engine_forwards_total", "manual-worker"] == 10
    assert numbers["kirazuri_engine_evaluations_total", "manual-worker"] == 25
    assert numbers["kirazuri_engine_evaluations_total", "other"] == 5


def test_failures_of_background_tasks_are_counted(
    client: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAILURES, "keys", 3)
    assert read_metrics(client)["kirazuri_background_task_failures_total", "keys"] == 3


def test_the_eta_error_is_measured(client: httpx2.Client, worker: ManualWorker) -> None:
    first = submit_job(client)
    worker.claim(first)
    worker.finish(first, b"first")
    worker.heartbeat(details={"cost_per_second": 1.0})
    body = {"prompt": PROMPT}  # the throughput is read once a second
    wait_until(lambda: client.post("/generate?dry_run=true", json=body).json()["eta_seconds"])
    before = read_metrics(client)  # the first job too has an ETA while an old throughput is in use
    job = client.post("/generate", json=body).json()
    eta, job_id = job["eta_seconds"], job["id"]
    assert eta > 0
    worker.claim(job_id)
    worker.finish(job_id, b"second")
    job = client.get(f"/jobs/{job_id}").json()
    ended, made = (datetime.fromisoformat(job[f"{name}_at"]) for name in ("finished", "created"))
    took = (ended - made).total_seconds()
    numbers = read_metrics(client)
    actual_count, actual, error_count, error = (
        numbers[name,] - before[name,]
        for kind in ("actual", "error")
        for name in (f"kirazuri_eta_{kind}_seconds_count", f"kirazuri_eta_{kind}_seconds_sum")
    )
    assert (actual_count, error_count) == (1, 1)
    assert actual == pytest.approx(took, abs=0.01)
    assert error == pytest.approx(abs(took - eta), abs=0.06)


def test_latencies_are_labelled_by_route(client: httpx2.Client) -> None:
    job_id = submit_job(client)
    before = read_metrics(client).get(
        ("kirazuri_http_request_seconds_count", "GET", "/jobs/{job_id}", "200"), 0
    )
    client.get(f"/jobs/{job_id}")
    client.get("/nowhere/at/all")
    numbers = read_metrics(client)
    name = "kirazuri_http_request_seconds_count"
    assert numbers[name, "GET", "/jobs/{job_id}", "200"] == before + 1
    assert numbers[name, "GET", "none", "404"] >= 1
    assert not any(job_id in part for key in numbers for part in key)


def test_a_worker_whose_compiled_code_failed_is_a_warning(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    for state, expected in (("ready", []), ("failed", ["manual-worker"])):
        detail = "OSError: /srv/secret"
        worker.heartbeat(details={"compiled": {"name": state, "detail": detail, "failures": 1}})
        warnings = client.get("/readyz").json()["warnings"]
        assert warnings == [
            f"worker: {name} computes eagerly, because compiled code failed; see its log"
            for name in expected
        ]

"""A dry run shows what a request would become and queues nothing."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis

from api.submit.dry_run import Plan
from model.card import load_card
from model.prompting.tokens import count_tokens, load_tokenizers
from tests.support.api_calls import read_problem, redis_setting
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from worker.auth.key_store import LINK_SECRET
from worker.queue.layout import redis_keys, rq_layout
from worker.redis_io import server as redis_server
from worker.settings import Settings

GOOD = "masterpiece, best quality, 1girl, blue hair, red eyes, smile"


def dry_run(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/generate?dry_run=true", json={"prompt": GOOD, **body})
    assert answer.status_code == 200, answer.text
    assert "location" not in answer.headers
    plan: dict[str, Any] = answer.json()
    Plan.model_validate_json(answer.text)
    return plan


def test_the_plan_is_what_a_submission_becomes(client: httpx2.Client) -> None:
    body = {
        "tags": {"general": ["long_hair"], "quality": ["masterpiece"]},
        "prompt": "She waves.",
        "negative_prompt": "blurry",
        "steps": 99,
        "seed": 7,
    }
    plan = dry_run(client, **body)
    assert client.get("/metrics").text.count("kirazuri_jobs_accepted_total 0.0") == 1
    job = client.post("/generate", json=body).json()
    assert plan["request"] == job["request"]
    assert plan["request"]["prompt"] == "masterpiece, long hair, She waves."
    assert plan["warnings"] == job["warnings"]
    assert {"steps_not_recommended"} <= {warning["code"] for warning in plan["warnings"]}


def test_a_seed_is_drawn_at_submission_only(client: httpx2.Client) -> None:
    assert dry_run(client)["request"]["seed"] is None
    assert dry_run(client, seed=0)["request"]["seed"] == 0


def test_no_job_and_no_idempotency_key_is_stored(client: httpx2.Client, redis_url: str) -> None:
    headers = {"idempotency-key": "plan", "prefer": "wait=1"}
    answer = client.post("/generate?dry_run=true", json={"prompt": GOOD}, headers=headers)
    assert answer.status_code == 200
    assert "preference-applied" not in answer.headers
    with Redis.from_url(redis_url) as redis:
        # The service polls for API keys, which creates the secret of signed URLs again.
        assert set(redis.keys("*")) <= {LINK_SECRET.encode()}
    other = client.post("/generate", json={"prompt": f"{GOOD}, hat"}, headers=headers)
    assert other.status_code == 202


def test_tokens_of_both_prompts_are_counted(client: httpx2.Client) -> None:
    long = ("blue hair, " * 60).strip()
    tokens = dry_run(client, prompt=long, negative_prompt="")["tokens"]
    expected = count_tokens(long, load_tokenizers(load_card("kirazuri-tiny"), None), 80)
    assert tokens == {
        "prompt": {"qwen": expected.qwen, "t5": expected.t5, "limit": 80, "is_cut": True},
        "negative_prompt": {"qwen": 0, "t5": 1, "limit": 80, "is_cut": False},
    }


def test_cost_is_megapixels_times_evaluations(client: httpx2.Client) -> None:
    body = {"resolution": "128x128", "sampler": "heun", "steps": 10, "num_images": 3}
    assert dry_run(client, **body)["cost"] == pytest.approx(0.128 * 0.128 * 19 * 2 * 3, abs=1e-3)
    assert dry_run(client, **body, cfg_scale=1)["cost"] == pytest.approx(
        0.128 * 0.128 * 19 * 3, abs=1e-3
    )


def test_a_faster_quality_costs_as_much_less_as_the_capabilities_say(
    client: httpx2.Client,
) -> None:
    exact = dry_run(client)["cost"]
    for quality in client.get("/capabilities").json()["qualities"]:
        plan = dry_run(client, quality=quality["name"])
        assert plan["request"]["quality"] == quality["name"]
        assert plan["cost"] == pytest.approx(quality["work"] * exact, abs=2e-3)


def test_times_are_null_until_a_worker_was_measured(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    worker.heartbeat()
    plan = dry_run(client)
    assert plan["queue_position"] == 0
    assert [plan[f"{name}_seconds"] for name in ("waiting", "own", "eta")] == [None] * 3


def test_times_follow_from_the_measured_pace(
    settings: Settings, redis_url: str, worker: ManualWorker
) -> None:
    worker.redis.set(redis_keys.MEAN_COST, 4.0)
    with (
        ApiServer(settings) as fresh,  # a process that has not read the throughput yet
        httpx2.Client(base_url=fresh.url, timeout=20) as client,
    ):
        worker.heartbeat(details={"cost_per_second": 2.0})
        idle = dry_run(client)
        assert idle["waiting_seconds"] == 0
        assert idle["own_seconds"] == pytest.approx(idle["cost"] / 2, abs=0.06)
        jobs = [client.post("/generate", json={"prompt": GOOD}).json()["id"] for _ in range(3)]
        worker.claim(jobs[0])
        worker.redis.lrem(rq_layout.list_key(), 1, jobs[0])  # as RQ does
        busy = dry_run(client)
        assert busy["queue_position"] == 2
        assert busy["waiting_seconds"] == pytest.approx((2 + 0.5) * 4 / 2, abs=0.06)
        assert busy["own_seconds"] == idle["own_seconds"]
        assert busy["eta_seconds"] == pytest.approx(5 + idle["own_seconds"], abs=0.1)
        job = client.post("/generate", json={"prompt": GOOD}).json()
        assert job["queue_position"] == busy["queue_position"]
        assert job["eta_seconds"] == busy["eta_seconds"]


def test_an_invalid_body_is_refused(client: httpx2.Client) -> None:
    answer = client.post("/generate?dry_run=true", json={"prompt": "(a:nan)", "steps": 0})
    assert answer.status_code == 422
    assert {error["pointer"] for error in read_problem(answer)["errors"]} == {"/prompt", "/steps"}


def test_the_parameter_is_a_boolean(client: httpx2.Client) -> None:
    answers = {
        value: client.post(f"/generate?dry_run={value}", json={"prompt": GOOD})
        for value in ("true", "1", "false", "perhaps")
    }
    assert [answer.status_code for answer in answers.values()] == [200, 200, 202, 422]
    (error,) = read_problem(answers["perhaps"])["errors"]
    assert "dry_run" in error["detail"]


def test_without_redis_position_and_times_are_null(settings: Settings, tmp_path: Path) -> None:
    own = redis_server.start(tmp_path / "redis")
    running = ApiServer(settings.model_copy(update={"redis_url": redis_setting(own.url)}))
    running.start()
    own.stop()
    try:
        with httpx2.Client(base_url=running.url, timeout=20) as client:
            plan = dry_run(client)
    finally:
        running.stop()
    assert plan["request"]["prompt"] == GOOD
    assert plan["tokens"]["prompt"]["t5"] > 1
    unknown = ("queue_position", "waiting_seconds", "own_seconds", "eta_seconds")
    assert [plan[name] for name in unknown] == [None] * 4

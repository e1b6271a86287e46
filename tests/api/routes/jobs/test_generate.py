"""Submitting jobs: defaults, waiting, idempotency and refusals."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from api.submit.context import parse_prefer_wait
from tests.support.api_calls import PROMPT, read_problem, redis_setting, submit_job
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import wait_until
from worker.redis_io import server as redis_server
from worker.settings import Settings


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_wait_seconds": 60})


def test_open_fields_are_filled_from_the_card(client: httpx2.Client, server: ApiServer) -> None:
    answer = client.post("/generate", json={"prompt": PROMPT})
    assert answer.status_code == 202
    job = answer.json()
    assert job["status"] == "queued"
    assert job["queue_position"] == 0
    seed = job["request"].pop("seed")
    assert 0 <= seed < 2**32
    assert job["request"] == {
        "prompt": PROMPT,
        "negative_prompt": "",
        "width": 128,
        "height": 128,
        "steps": 20,
        "cfg_scale": 4.0,
        "sampler": "er_sde",
        "scheduler": "simple",
        "num_images": 1,
        "image_format": "png",
        "image_quality": 90,
        "quality": "exact",
        "metadata": "full",
        "loras": [],
        "deterministic": False,
        "previews": False,
        "sampler_options": {},
        "init_image": None,
        "strength": None,
        "mask": None,
        "hires": None,
    }
    assert job["links"] == {
        "self": f"{server.url}/jobs/{job['id']}",
        "events": f"{server.url}/jobs/{job['id']}/events",
        "cancel": f"{server.url}/jobs/{job['id']}",
    }
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert client.get(answer.headers["location"]).json()["request"]["seed"] == seed


def test_given_fields_are_kept(client: httpx2.Client) -> None:
    asked = {
        "negative_prompt": "",
        "steps": 7,
        "cfg_scale": 1,
        "sampler": "heun",
        "scheduler": "beta",
        "seed": 2**53 - 1,
        "num_images": 2,
        "image_format": "webp",
        "image_quality": 1,
        "metadata": "none",
        "deterministic": True,
    }
    answer = client.post("/generate", json={"prompt": PROMPT, "resolution": "144x112", **asked})
    request = answer.json()["request"]
    assert {name: request[name] for name in asked} == asked
    assert (request["width"], request["height"]) == (144, 112)


def test_integers_may_be_written_as_floats(client: httpx2.Client) -> None:
    body = (
        '{"prompt": "1girl", "steps": 20.0, "seed": 7.0, "num_images": 2e0, "image_quality": 9e1,'
        ' "cfg_scale": 4, "sampler": "er_sde", "sampler_options": {"max_stage": 2.0, "eta": 1},'
        ' "hires": {"scale": 1.5, "steps": 6.0}}'
    )
    headers = {"content-type": "application/json"}
    request = client.post("/generate", content=body, headers=headers).json()["request"]
    fields = [
        request["steps"],
        request["seed"],
        request["num_images"],
        request["image_quality"],
        request["sampler_options"]["max_stage"],
        request["hires"]["steps"],
    ]
    assert fields == [20, 7, 2, 90, 2, 6]
    assert {type(value) for value in fields} == {int}


def test_a_seed_of_minus_one_is_drawn(client: httpx2.Client) -> None:
    headers = {"idempotency-key": "abc"}
    seeds = []
    for seed in (-1, -1.0, None):  # the same body
        answer = client.post("/generate", json={"prompt": PROMPT, "seed": seed}, headers=headers)
        seeds.append(answer.json()["request"]["seed"])
    assert seeds[0] >= 0
    assert len(set(seeds)) == 1
    plan = client.post("/generate?dry_run=true", json={"prompt": PROMPT, "seed": -1}).json()
    assert plan["request"]["seed"] is None


def test_sampler_options_are_kept(client: httpx2.Client) -> None:
    for options, kept in [({"eta": 1}, {"eta": 1.0}), ({}, {}), (None, {})]:
        body = {"prompt": PROMPT, "sampler": "sa_solver", "sampler_options": options}
        assert client.post("/generate", json=body).json()["request"]["sampler_options"] == kept


def test_a_preset_is_a_size(client: httpx2.Client) -> None:
    request = client.post("/generate", json={"prompt": PROMPT, "resolution": "portrait"}).json()[
        "request"
    ]
    assert (request["width"], request["height"]) == (112, 144)


def test_every_missing_seed_is_drawn(client: httpx2.Client) -> None:
    seeds = {
        client.post("/generate", json={"prompt": PROMPT, "seed": None}).json()["request"]["seed"]
        for _ in range(4)
    }
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/generate", {"num_images": 8}, 8),
        ("/sdapi/v1/txt2img", {"batch_size": 2, "n_iter": 2}, 4),
        ("/v1/images/generations", {"n": 3}, 3),
    ],
)
def test_drawn_seeds_of_all_images_have_32_bits(
    client: httpx2.Client,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, int],
    count: int,
) -> None:
    monkeypatch.setattr("api.submit.submitter.secrets.randbelow", lambda limit: limit - 1)
    answer = client.post(path, json={"prompt": PROMPT, **body}, headers={"prefer": "wait=0"})
    request = client.get(answer.headers["location"]).json()["request"]
    assert request["num_images"] == count
    assert request["seed"] + count - 1 == 2**32 - 1


def test_warnings_advise_on_a_request(client: httpx2.Client) -> None:
    job = client.post("/generate", json={"prompt": "1girl", "steps": 1, "cfg_scale": 20}).json()
    codes = {warning["code"] for warning in job["warnings"]}
    assert {"short_prompt", "steps_not_recommended", "cfg_scale_not_recommended"} <= codes
    assert client.get(f"/jobs/{job['id']}").json()["warnings"] == job["warnings"]


def test_a_call_waits_for_the_end_of_its_job(client: httpx2.Client, worker: ManualWorker) -> None:
    def work() -> None:
        wait_until(worker.queued_ids)
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.finish(job_id, b"picture")

    thread = threading.Thread(target=work)
    thread.start()
    headers = {"prefer": "respond-async, wait=9999"}
    answer = client.post("/generate", json={"prompt": PROMPT}, headers=headers, timeout=90)
    thread.join()
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=60"
    assert answer.json()["status"] == "succeeded"
    assert client.get(answer.json()["images"][0]["url"]).content == b"picture"


def test_waiting_ends_after_the_requested_time(client: httpx2.Client) -> None:
    answer = client.post("/generate", json={"prompt": PROMPT}, headers={"prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.json()["status"] == "queued"
    assert answer.elapsed.total_seconds() > 0.9


def test_parsing_prefer() -> None:
    expected = {
        None: None,
        "": None,
        "respond-async": None,
        "wait=5": 5,
        "Wait = 5": 5,
        'respond-async; x="y", wait="7"': 7,
        "wait=999": 60,
        "wait=0": 0,
        "await=5": None,
        "wait=99999999999": 60,
        "wait=1.5": None,
        "wait=5s": None,
        "wait": None,
    }
    assert {prefer: parse_prefer_wait(prefer, 60) for prefer in expected} == expected


def test_one_key_and_body_make_one_job(client: httpx2.Client) -> None:
    def post(_: int) -> httpx2.Response:
        return client.post("/generate", json={"prompt": PROMPT}, headers={"idempotency-key": "abc"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(16)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({answer.json()["request"]["seed"] for answer in answers}) == 1


def test_null_and_missing_fields_are_the_same_body(client: httpx2.Client) -> None:
    headers = {"idempotency-key": "abc"}
    first = client.post("/generate", json={"prompt": PROMPT}, headers=headers)
    second = client.post("/generate", json={"seed": None, "prompt": PROMPT}, headers=headers)
    assert first.json()["id"] == second.json()["id"]


def test_one_key_with_two_bodies_is_refused(client: httpx2.Client) -> None:
    headers = {"idempotency-key": "abc"}
    client.post("/generate", json={"prompt": PROMPT}, headers=headers)
    answer = client.post("/generate", json={"prompt": PROMPT, "steps": 9}, headers=headers)
    assert answer.status_code == 422
    problem = read_problem(answer)
    assert problem["code"] == "idempotency_conflict"
    assert problem["errors"] == []


def test_a_refused_body_does_not_use_up_the_key(client: httpx2.Client) -> None:
    headers = {"idempotency-key": "abc"}
    assert client.post("/generate", json={}, headers=headers).status_code == 422
    assert client.post("/generate", json={"prompt": PROMPT}, headers=headers).status_code == 202


def test_a_full_queue_says_when_to_retry(client: httpx2.Client) -> None:
    for _ in range(5):
        submit_job(client)
    answer = client.post("/generate", json={"prompt": PROMPT})
    assert answer.status_code == 429
    assert read_problem(answer)["code"] == "queue_full"
    assert 1 <= int(answer.headers["retry-after"]) <= 120


def test_trace_context_stays_with_the_job(client: httpx2.Client, redis_url: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = client.post("/generate", json={"prompt": PROMPT}, headers={"traceparent": trace})
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        record = redis.hgetall(f"kirazuri:job:{answer.json()['id']}")
    assert record["traceparent"] == trace


def test_a_request_id_is_returned(client: httpx2.Client) -> None:
    answer = client.get("/livez", headers={"x-request-id": "abc-123"})
    assert answer.headers["x-request-id"] == "abc-123"
    assert answer.headers["x-content-type-options"] == "nosniff"
    drawn = client.get("/livez", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert len(drawn) == 32


def test_urls_begin_with_the_configured_public_url(settings: Settings, redis_url: str) -> None:
    with ApiServer(
        settings.model_copy(update={"public_url": "https://art.example/api/"})
    ) as public:
        job = httpx2.post(f"{public.url}/generate", json={"prompt": PROMPT}, timeout=60).json()
    assert job["links"]["self"] == f"https://art.example/api/jobs/{job['id']}"


def test_without_redis(settings: Settings, tmp_path: Path) -> None:
    own = redis_server.start(tmp_path / "redis")
    with (
        ApiServer(settings.model_copy(update={"redis_url": redis_setting(own.url)})) as running,
        httpx2.Client(base_url=running.url, timeout=20) as client,
    ):
        job_id = submit_job(client)
        own.stop()
        refused = client.post("/generate", json={"prompt": PROMPT})
        assert refused.status_code == 503
        assert read_problem(refused)["code"] == "queue_unavailable"
        assert int(refused.headers["retry-after"]) > 0
        assert str(tmp_path) not in refused.text
        assert client.get(f"/jobs/{job_id}").status_code == 503
        assert client.get(f"/jobs/{job_id}/events").status_code == 503
        assert client.delete(f"/jobs/{job_id}").status_code == 503
        assert "redis: does not answer" in client.get("/readyz").json()["reasons"]
        assert client.get("/livez").status_code == 200
        assert client.get("/capabilities").json()["workers"] == []
        assert "kirazuri_queue_up 0.0" in client.get("/metrics").text
        own.stop()

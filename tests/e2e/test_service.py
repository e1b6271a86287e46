"""The running service: shared forwards, cancelling, invalid input, waiting, idempotency."""

import random
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest

from tests.support.metrics import await_heartbeats, families, value
from tests.support.pictures import QUALITY, finished, picture, pixels, submit
from tests.support.service import halted_worker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)


def calls(service: httpx2.Client) -> tuple[float, float]:
    """The number of model calls so far, and the number of pictures that they advanced."""
    await_heartbeats(service)
    found = families(service)
    forwards, evaluations = (
        value(found[f"kirazuri_engine_{name}_total"], "_total")
        for name in ("forwards", "evaluations")
    )
    return forwards, evaluations


def mixed_requests(count: int) -> list[dict[str, Any]]:
    choice = random.Random(4)
    samplers = ["er_sde", "sa_solver", "sa_solver_pece", "euler", "euler_ancestral", "heun",
                "dpmpp_2m", "dpmpp_2m_sde"]  # fmt: skip
    return [
        {
            "prompt": f"{QUALITY}, {choice.choice(['red', 'blue', 'pink'])} hair, smile",
            "resolution": choice.choice(["square", "portrait"]),
            "steps": choice.randint(4, 8),
            "cfg_scale": choice.choice([1, 2.5, 4]),
            "sampler": samplers[i % len(samplers)],
            "scheduler": choice.choice(["simple", "beta", "normal", "sgm_uniform"]),
            "seed": choice.randint(0, 2**53 - 1),
        }
        for i in range(count)
    ]


def test_mixed_requests_share_forwards_and_equal_their_single_runs(
    service: httpx2.Client, service_folder: Path
) -> None:
    requests = mixed_requests(10)
    before = calls(service)
    with halted_worker(service_folder):
        jobs = [submit(service, **fields) for fields in requests]
    together = [picture(service, finished(service, job)) for job in jobs]
    after = calls(service)
    forwards, evaluations = (b - a for a, b in zip(before, after, strict=True))
    assert evaluations / forwards > 1.3
    for fields, image in zip(requests, together, strict=True):
        alone = picture(service, finished(service, submit(service, **fields)))
        assert numpy.abs(pixels(image) - pixels(alone)).max() <= 1, fields


def test_a_running_job_is_cancelled_and_a_finished_one_is_not(service: httpx2.Client) -> None:
    job = submit(service, prompt=f"{QUALITY}, red hair", steps=100, resolution="square_hd")
    wait_until(lambda: service.get(f"/jobs/{job['id']}").json()["progress"]["step"] >= 2)
    assert service.delete(f"/jobs/{job['id']}").status_code == 202
    done = finished(service, job)
    assert done["status"] == "cancelled"
    assert done["progress"]["step"] < 90
    assert service.delete(f"/jobs/{job['id']}").status_code == 409


BAD_BODIES = [
    (b"{", 400),
    (b"", 422),
    (b"[]", 422),
    (b'{"prompt": "x", "steps": 1e400}', 422),
    (b'{"prompt": "\\ud800"}', 422),
    (b'{"prompt": "' + b"a" * 100_000 + b'"}', 422),
    (b'{"prompt": "' + b"a" * 17_000_000 + b'"}', 413),
    (b'{"prompt": "x", "resolution": "0x0"}', 422),
    (b'{"prompt": "x", "resolution": "17x17"}', 422),
    (b'{"prompt": "x", "resolution": "1000000000x1000000000"}', 422),
    (b'{"prompt": "x", "steps": 0, "sampler": "magic", "colour": 1}', 422),
    (b"[" * 100_000, 422),
]


def test_bad_bodies_get_a_problem_and_the_service_stays_up(service: httpx2.Client) -> None:
    headers = {"content-type": "application/json"}
    for content, status in BAD_BODIES:
        answer = service.post("/generate", content=content, headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["status"]) == (status, status), content[:80]
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "detail", "instance", "code"} <= set(problem)
        assert service.get("/livez").status_code == 200


def test_every_wrong_field_has_its_own_entry_with_the_limit(service: httpx2.Client) -> None:
    body = {"prompt": "x", "steps": 0, "sampler": "magic", "cfg_scale": 99, "colour": 1}
    problem = service.post("/generate", json=body).json()
    entries = {entry["pointer"]: entry for entry in problem["errors"]}
    assert set(entries) == {"/steps", "/sampler", "/cfg_scale", "/colour"}
    assert "30" in str(entries["/cfg_scale"]["limit"])
    assert "er_sde" in str(entries["/sampler"]["limit"])


def test_waiting_for_the_answer_gives_the_finished_job(service: httpx2.Client) -> None:
    answer = service.post(
        "/generate",
        json={"prompt": f"{QUALITY}, blonde hair", "steps": 4, "seed": 2},
        headers={"Prefer": "wait=30"},
    )
    assert answer.status_code == 200
    job = answer.json()
    assert job["status"] == "succeeded"
    assert service.get(job["images"][0]["url"]).content.startswith(b"\x89PNG")
    assert all(job["timings"][part] is not None for part in ("queued", "denoise", "decode"))


def test_an_idempotency_key_makes_one_job(service: httpx2.Client) -> None:
    body = {"prompt": f"{QUALITY}, grey hair", "steps": 4}
    headers = {"Idempotency-Key": "one-picture"}
    first = service.post("/generate", json=body, headers=headers).json()
    again = service.post("/generate", json=body, headers=headers).json()
    assert first["id"] == again["id"]
    assert first["request"]["seed"] == again["request"]["seed"]
    other = service.post("/generate", json={**body, "steps": 5}, headers=headers)
    assert other.status_code == 422

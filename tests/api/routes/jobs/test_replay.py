"""Replaying: what is queued, what it is compared with, what is refused."""

from typing import Any

import httpx2
import pytest
from redis import Redis

from model.recipes.recipe import Recipe
from tests.support.api_calls import read_problem, submit_job
from tests.support.manual_worker import ManualWorker
from worker.job_errors import job_error
from worker.settings import Settings

RECIPE = Recipe(card="kirazuri-tiny", checkpoint="ab" * 32, device_name="A", torch="2.13")


def carried_out(
    worker: ManualWorker, job_id: str, *pictures: bytes, recipe: Recipe = RECIPE
) -> None:
    worker.claim(job_id)
    worker.report(job_id, "", {}, recipe=recipe.model_dump_json())
    worker.finish(job_id, *pictures)


def replay(client: httpx2.Client, job_id: str, **headers: str) -> Any:
    answer = client.post(f"/jobs/{job_id}/replay", headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def job_of(client: httpx2.Client, job_id: str) -> Any:
    return client.get(f"/jobs/{job_id}").json()


def codes(job: Any) -> list[str]:
    return [warning["code"] for warning in job["warnings"]]


def test_the_same_pictures_match(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client, num_images=2, deterministic=True, seed=3)
    carried_out(worker, job_id, b"one", b"two")
    first = job_of(client, job_id)
    assert (first["replay_of"], first["matches"]) == (None, None)
    answer = client.post(f"/jobs/{job_id}/replay")
    again = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{again['id']}"
    assert again["id"] != job_id
    assert again["status"] == "queued"
    assert again["request"] == first["request"]
    assert (again["replay_of"], again["matches"]) == (job_id, None)
    assert worker.claim(again["id"]).request.deterministic
    assert job_of(client, again["id"])["matches"] is None
    worker.report(again["id"], "", {}, recipe=RECIPE.model_dump_json())
    worker.finish(again["id"], b"one", b"two")
    done = job_of(client, again["id"])
    assert done["matches"] is True
    assert done["recipe"] == RECIPE.model_dump()
    assert codes(done) == []


@pytest.mark.parametrize("pictures", [(b"one", b"other"), (b"two", b"one"), (b"one",)])
def test_other_pictures_do_not(
    client: httpx2.Client, worker: ManualWorker, pictures: tuple[bytes, ...]
) -> None:
    job_id = submit_job(client, num_images=2, deterministic=True)
    carried_out(worker, job_id, b"one", b"two")
    again = replay(client, job_id)
    carried_out(worker, again["id"], *pictures)
    assert job_of(client, again["id"])["matches"] is False


def test_a_replay_is_deterministic_and_says_what_that_is_worth(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    carried_out(worker, job_id, b"one")
    first, again = job_of(client, job_id), replay(client, job_id)
    assert again["request"] == {**first["request"], "deterministic": True}
    assert codes(again) == ["original_not_deterministic"]
    assert job_id in again["warnings"][0]["detail"]
    carried_out(worker, again["id"], b"one")
    twice = replay(client, again["id"])
    assert (codes(twice), twice["replay_of"]) == ([], again["id"])


def test_another_kind_of_worker_is_told(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client, deterministic=True)
    carried_out(worker, job_id, b"one")
    again = replay(client, job_id)
    other = RECIPE.model_copy(update={"device_name": "B", "torch": "3.0"})
    carried_out(worker, again["id"], b"one", recipe=other)
    done = job_of(client, again["id"])
    assert codes(done) == ["recipe_differs"]
    assert done["warnings"][0]["detail"] == "device_name was A and is B; torch was 2.13 and is 3.0"
    assert done["matches"] is True


def test_a_replay_that_fails_proves_nothing(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client, deterministic=True)
    carried_out(worker, job_id, b"one")
    again = replay(client, job_id)
    worker.claim(again["id"])
    worker.end(again["id"], "failed", error=job_error("non_finite", "x"))
    assert job_of(client, again["id"])["matches"] is None


def test_the_original_may_expire_meanwhile(
    client: httpx2.Client, worker: ManualWorker, redis_url: str
) -> None:
    job_id = submit_job(client, deterministic=True)
    carried_out(worker, job_id, b"one")
    again = replay(client, job_id)
    with Redis.from_url(redis_url) as redis:
        assert redis.delete(f"kirazuri:job:{job_id}") == 1
    carried_out(worker, again["id"], b"one")
    assert job_of(client, again["id"])["matches"] is True


def test_a_job_without_a_recipe_can_be_replayed(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    """Such as one that the previous release made."""
    job_id = submit_job(client, deterministic=True)
    worker.claim(job_id)
    worker.finish(job_id, b"one")
    again = replay(client, job_id)
    carried_out(worker, again["id"], b"one")
    done = job_of(client, again["id"])
    assert (done["matches"], codes(done)) == (True, [])


def test_waiting_and_keys_work_as_for_other_submissions(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    carried_out(worker, job_id, b"one")
    first = replay(client, job_id, **{"idempotency-key": "again", "prefer": "wait=0"})
    second = replay(client, job_id, **{"idempotency-key": "again"})
    assert first["id"] == second["id"]
    headers = {"idempotency-key": "again"}
    other = submit_job(client)
    carried_out(worker, other, b"two")
    for refused in (
        client.post(f"/jobs/{other}/replay", headers=headers),
        client.post("/generate", json={"prompt": "1girl"}, headers=headers),
    ):
        assert refused.status_code == 422
        assert read_problem(refused)["code"] == "idempotency_conflict"


def test_only_what_succeeded_can_be_replayed(client: httpx2.Client, worker: ManualWorker) -> None:
    waiting, failed, cancelled = submit_job(client), submit_job(client), submit_job(client)
    worker.claim(failed)
    worker.end(failed, "failed", error=job_error("non_finite", "x"))
    client.delete(f"/jobs/{cancelled}")
    for job_id, status in ((waiting, "queued"), (failed, "failed"), (cancelled, "cancelled")):
        answer = client.post(f"/jobs/{job_id}/replay")
        assert answer.status_code == 409
        problem = read_problem(answer)
        assert problem["code"] == "job_not_succeeded"
        assert status in problem["detail"]


@pytest.mark.parametrize(
    ("job_id", "status", "code"),
    [
        ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", 404, "job_not_found"),
        ("nonsense", 404, "job_not_found"),
        ("01JD6Z1Q8M4T0V7C2N5K9R3XWB", 410, "job_expired"),
    ],
)
def test_jobs_that_are_not_there(
    client: httpx2.Client, job_id: str, status: int, code: str
) -> None:
    answer = client.post(f"/jobs/{job_id}/replay")
    assert (answer.status_code, read_problem(answer)["code"]) == (status, code)


def test_a_full_queue_refuses_replays_too(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    job_id = submit_job(client)
    carried_out(worker, job_id, b"one")
    for _ in range(settings.max_queue):
        submit_job(client)
    answer = client.post(f"/jobs/{job_id}/replay")
    assert (answer.status_code, read_problem(answer)["code"]) == (429, "queue_full")

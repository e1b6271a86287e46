"""Replaying jobs: the new job, the comparison, refusals."""

from typing import Any

import httpx2
from redis import Redis

from model.recipes.recipe import Recipe
from tests.support.api_calls import read_problem, submit_job
from tests.support.manual_worker import ManualWorker
from worker.job_errors import job_error
from worker.settings import Settings

RECIPE = Recipe(card="kirazuri-tiny", checkpoint="ab" * 32, device_name="A", torch="2.13")


def complete(worker: ManualWorker, job_id: str, *pictures: bytes, recipe: Recipe = RECIPE) -> None:
    worker.claim(job_id)
    worker.report(job_id, "", {}, recipe=recipe.model_dump_json())
    worker.finish(job_id, *pictures)


def replay(client: httpx2.Client, job_id: str, **headers: str) -> Any:
    answer = client.post(f"/jobs/{job_id}/replay", headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def read_job(client: httpx2.Client, job_id: str) -> Any:
    return client.get(f"/jobs/{job_id}").json()


def codes(job: Any) -> list[str]:
    return [warning["code"] for warning in job["warnings"]]


def test_the_same_images_match(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client, num_images=2, deterministic=True, seed=3)
    complete(worker, job_id, b"one", b"two")
    first = read_job(client, job_id)
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
    assert read_job(client, again["id"])["matches"] is None
    worker.report(again["id"], "", {}, recipe=RECIPE.model_dump_json())
    worker.finish(again["id"], b"one", b"two")
    done = read_job(client, again["id"])
    assert done["matches"] is True
    assert done["recipe"] == RECIPE.model_dump()
    assert codes(done) == []


def test_other_images_do_not_match(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client, num_images=2, deterministic=True)
    complete(worker, job_id, b"one", b"two")
    for images in ((b"one", b"other"), (b"two", b"one"), (b"one",)):
        again = replay(client, job_id)
        complete(worker, again["id"], *images)
        assert read_job(client, again["id"])["matches"] is False, images


def test_a_replay_is_deterministic_and_warns_if_the_original_was_not(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client, quality="fast")
    complete(worker, job_id, b"one")
    first, again = read_job(client, job_id), replay(client, job_id)
    assert again["request"] == {**first["request"], "deterministic": True}
    assert again["request"]["quality"] == "fast"
    assert codes(again) == ["original_not_deterministic"]
    assert job_id in again["warnings"][0]["detail"]
    complete(worker, again["id"], b"one")
    twice = replay(client, again["id"])
    assert (codes(twice), twice["replay_of"]) == ([], again["id"])


def test_a_replay_under_another_recipe_gets_a_warning(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client, deterministic=True)
    complete(worker, job_id, b"one")
    again = replay(client, job_id)
    other = RECIPE.model_copy(update={"device_name": "B", "torch": "3.0"})
    complete(worker, again["id"], b"one", recipe=other)
    done = read_job(client, again["id"])
    assert codes(done) == ["recipe_differs"]
    assert done["warnings"][0]["detail"] == "device_name was A and is B; torch was 2.13 and is 3.0"
    assert done["matches"] is True


def test_a_failed_replay_has_no_match(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = submit_job(client, deterministic=True)
    complete(worker, job_id, b"one")
    again = replay(client, job_id)
    worker.claim(again["id"])
    worker.end(again["id"], "failed", error=job_error("non_finite", "x"))
    assert read_job(client, again["id"])["matches"] is None


def test_the_original_may_expire_before_the_replay_ends(
    client: httpx2.Client, worker: ManualWorker, redis_url: str
) -> None:
    job_id = submit_job(client, deterministic=True)
    complete(worker, job_id, b"one")
    again = replay(client, job_id)
    with Redis.from_url(redis_url) as redis:
        assert redis.delete(f"kirazuri:job:{job_id}") == 1
    complete(worker, again["id"], b"one")
    assert read_job(client, again["id"])["matches"] is True


def test_a_job_without_a_recipe_can_be_replayed(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    """Jobs of the previous release have no recipe."""
    job_id = submit_job(client, deterministic=True)
    worker.claim(job_id)
    worker.finish(job_id, b"one")
    again = replay(client, job_id)
    complete(worker, again["id"], b"one")
    done = read_job(client, again["id"])
    assert (done["matches"], codes(done)) == (True, [])


def test_waiting_and_keys_work_as_for_other_submissions(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(client)
    complete(worker, job_id, b"one")
    first = replay(client, job_id, **{"idempotency-key": "again", "prefer": "wait=0"})
    second = replay(client, job_id, **{"idempotency-key": "again"})
    assert first["id"] == second["id"]
    headers = {"idempotency-key": "again"}
    other = submit_job(client)
    complete(worker, other, b"two")
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


def test_unknown_and_expired_jobs(client: httpx2.Client) -> None:
    for job_id, status, code in (
        ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", 404, "job_not_found"),
        ("nonsense", 404, "job_not_found"),
        ("01JD6Z1Q8M4T0V7C2N5K9R3XWB", 410, "job_expired"),
    ):
        answer = client.post(f"/jobs/{job_id}/replay")
        assert (answer.status_code, read_problem(answer)["code"]) == (status, code)


def test_a_full_queue_refuses_replays_too(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    job_id = submit_job(client)
    complete(worker, job_id, b"one")
    for _ in range(settings.max_queue):
        submit_job(client)
    answer = client.post(f"/jobs/{job_id}/replay")
    assert (answer.status_code, read_problem(answer)["code"]) == (429, "queue_full")

"""The same picture again, through the running service."""

import hashlib
from typing import Any

import httpx2
import pytest

from tests.e2e.test_pictures import QUALITY, finished, submit

pytestmark = pytest.mark.timeout(180)

FIELDS: dict[str, Any] = {
    "prompt": f"{QUALITY}, pink hair, twintails, smile",
    "steps": 8,
    "seed": 77,
    "num_images": 2,
    "deterministic": True,
}


def hashes(service: httpx2.Client, job: dict[str, Any]) -> list[str]:
    """SHA-256 of what the service delivers, which is also what the job says."""
    assert job["status"] == "succeeded", job
    files = [service.get(image["url"]).content for image in job["images"]]
    found = [hashlib.sha256(data).hexdigest() for data in files]
    assert found == [image["sha256"] for image in job["images"]]
    return found


def test_a_request_gives_the_same_files_alone_and_among_others(service: httpx2.Client) -> None:
    alone = hashes(service, finished(service, submit(service, **FIELDS)))
    assert len(set(alone)) == 2
    again, *others = [
        submit(service, **fields)
        for fields in (FIELDS, *({"prompt": "1boy", "seed": seed} for seed in range(4)), FIELDS)
    ]
    assert hashes(service, finished(service, again)) == alone
    assert hashes(service, finished(service, others[-1])) == alone


def test_a_replay_matches(service: httpx2.Client) -> None:
    job = finished(service, submit(service, **FIELDS))
    assert job["recipe"]["card"] == "kirazuri-tiny"
    assert len(job["recipe"]["checkpoint"]) == 64
    assert job["recipe"]["device_name"]
    answer = service.post(f"/jobs/{job['id']}/replay", headers={"Prefer": "wait=60"})
    assert answer.status_code == 200
    again = answer.json()
    assert (again["replay_of"], again["matches"]) == (job["id"], True)
    assert hashes(service, again) == hashes(service, job)
    assert not {"original_not_deterministic", "recipe_differs"} & {
        warning["code"] for warning in again["warnings"]
    }

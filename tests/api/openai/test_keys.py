"""Keys and refusals as OpenAI's own client meets them."""

from typing import Any

import httpx2
import pytest
from openai import AuthenticationError, InternalServerError, PermissionDeniedError

from tests.support.api_keys import make_key
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import openai_client
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key
from worker.redis_io.client import connect
from worker.settings import Settings

BODY: dict[str, Any] = {"prompt": "1girl, blue hair, smile, hair bow"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "required", "sync_wait_seconds": 0.1})


@pytest.fixture
def secrets(server: ApiServer, redis_url: str) -> list[str]:
    """The keys of two owners, which the service knows."""
    made = [make_key(name, max_rating="safe") for name in ("alice", "bob")]
    with connect(redis_url) as connection:
        for _, key in made:
            assert add_key(connection, key)
    return [_known(server.url, secret) for secret, _ in made]


def _known(url: str, secret: str) -> str:
    headers = {"Authorization": f"Bearer {secret}"}
    wait_until(lambda: httpx2.get(f"{url}/v1/models", headers=headers).status_code == 200)
    return secret


@pytest.mark.usefixtures("secrets")
def test_without_a_key_of_ours_nothing_is_told(server: ApiServer) -> None:
    with openai_client(server.url) as openai:
        for call in (openai.models.list, lambda: openai.images.generate(**BODY)):
            with pytest.raises(AuthenticationError) as refused:
                call()
            assert refused.value.code == "invalid_api_key"
            assert refused.value.type == "invalid_request_error"


def test_nobody_finds_the_job_of_another_owners_try(
    server: ApiServer, secrets: list[str], worker: ManualWorker
) -> None:
    """The same parameters, and a header that says that this is a further try."""
    further = {"X-Stainless-Retry-Count": "1", "Idempotency-Key": "the same"}
    jobs = []
    for secret in (*secrets, secrets[0]):
        with (
            openai_client(server.url, key=secret, max_retries=0) as openai,
            pytest.raises(InternalServerError) as late,
        ):
            openai.images.generate(**BODY, extra_headers=further)
        jobs.append(late.value.response.headers["x-job-id"])
    assert jobs[0] != jobs[1]
    assert jobs[0] == jobs[2], "it is the first owner's again"
    assert set(worker.queued_ids()) == set(jobs)


def test_a_refusal_of_the_policy_is_a_403_that_is_not_tried_again(
    server: ApiServer, secrets: list[str], worker: ManualWorker
) -> None:
    with (
        openai_client(server.url, key=secrets[0]) as openai,
        pytest.raises(PermissionDeniedError) as refused,
    ):
        openai.images.generate(prompt="1girl, nsfw, nude", stream=True)
    body: Any = refused.value.body
    assert (body["code"], body["rule"]) == ("policy_blocked", "max_rating")
    assert worker.queued_ids() == []

"""API keys and policy refusals with the official Python client."""

from typing import Any

import httpx2
import pytest
from openai import AuthenticationError, InternalServerError, PermissionDeniedError

from tests.support.api_keys import make_key, wait_for_keys
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import openai_client
from worker.auth.key_store import add_key
from worker.redis_io.client import connect
from worker.settings import Settings

BODY: dict[str, Any] = {"prompt": "1girl, blue hair, smile, hair bow"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "required", "sync_wait_seconds": 0.1})


@pytest.fixture
def secrets(client: httpx2.Client, redis_url: str) -> list[str]:
    """Secrets of two keys, once the service accepts them."""
    made = [make_key(name, max_rating="safe") for name in ("alice", "bob")]
    with connect(redis_url) as connection:
        for _, key in made:
            assert add_key(connection, key)
    secrets = [secret for secret, _ in made]
    wait_for_keys(client, *secrets)
    return secrets


@pytest.mark.usefixtures("secrets")
def test_unknown_keys_are_refused(server: ApiServer) -> None:
    with openai_client(server.url) as openai:
        for call in (openai.models.list, lambda: openai.images.generate(**BODY)):
            with pytest.raises(AuthenticationError) as refused:
                call()
            assert refused.value.code == "invalid_api_key"
            assert refused.value.type == "invalid_request_error"


def test_retries_only_find_jobs_of_the_same_owner(
    server: ApiServer, secrets: list[str], worker: ManualWorker
) -> None:
    """All calls have the same parameters and claim to be retries."""
    retry = {"X-Stainless-Retry-Count": "1", "Idempotency-Key": "the same"}
    jobs = []
    for secret in (*secrets, secrets[0]):
        with (
            openai_client(server.url, key=secret, max_retries=0) as openai,
            pytest.raises(InternalServerError) as late,
        ):
            openai.images.generate(**BODY, extra_headers=retry)
        jobs.append(late.value.response.headers["x-job-id"])
    assert jobs[0] != jobs[1]
    assert jobs[0] == jobs[2], "the retry of the first owner"
    assert set(worker.queued_ids()) == set(jobs)


def test_policy_refusals_name_the_rule(
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

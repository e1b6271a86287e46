"""With keys, a repeated call finds the job of its own key."""

import httpx2
import pytest
from redis import Redis

from tests.support.api_keys import bearer, make_key
from tests.support.api_server import ApiServer
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key
from worker.queue.layout.redis_keys import calls_key
from worker.settings import Settings


@pytest.fixture
def secrets(redis_client: "Redis") -> list[str]:
    made = [make_key(name) for name in ("alice", "bob")]
    for _, key in made:
        add_key(redis_client, key)
    return [secret for secret, _ in made]


def unserved(client: httpx2.Client, secret: str) -> str:
    """The id of the job of a call that is over its time at once."""
    headers = bearer(secret) | {"prefer": "wait=0"}
    answer = client.post("/v1/images/generations", json={"prompt": "1girl"}, headers=headers)
    assert answer.status_code == 504, answer.text
    return str(answer.headers["x-job-id"])


def test_a_key_finds_its_own_jobs_from_any_address(
    public_server: ApiServer, secrets: list[str], redis_client: "Redis", settings: Settings
) -> None:
    alice, bob = secrets
    transport = httpx2.HTTPTransport(local_address="127.0.0.2")
    with (
        httpx2.Client(base_url=public_server.url, timeout=60) as here,
        httpx2.Client(base_url=public_server.url, timeout=60, transport=transport) as elsewhere,
    ):
        wait_until(lambda: here.get("/jobs", headers=bearer(bob)).status_code == 200)
        first = unserved(here, alice)
        assert unserved(elsewhere, alice) == first
        (key,) = redis_client.keys(calls_key("*", "*"))
        assert 600 < redis_client.ttl(key) <= settings.idempotency_ttl_seconds
        assert unserved(here, bob) != first

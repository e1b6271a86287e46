"""Each client only sees and cancels its own jobs."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import Request

from api.a1111.jobs.client_identity import client_name
from tests.support.a1111_clients import (
    NO_WAIT,
    TXT2IMG,
    basic_auth,
    is_idle,
    read_a1111_error,
    read_progress,
)
from tests.support.api_keys import make_key
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.pending_call import PendingCall
from worker.auth.key_store import add_key
from worker.settings import Settings

StartCall = Callable[..., tuple[PendingCall, str]]


def test_credentials_tell_clients_of_one_address_apart(
    client: httpx2.Client, worker: ManualWorker, start_call: StartCall
) -> None:
    alice, bob, other_bob = basic_auth("alice:1"), basic_auth("bob:2"), basic_auth("bob:3")
    _, job_of_alice = start_call(alice)
    _, job_of_bob = start_call(bob)
    for job_id in (job_of_alice, job_of_bob):
        worker.claim(job_id)
        worker.step(job_id, 4, 20)
    assert read_progress(client, alice)["current_task"] == job_of_alice
    assert read_progress(client, bob)["current_task"] == job_of_bob
    for stranger in (other_bob, {}, basic_auth(":")):
        assert is_idle(read_progress(client, stranger))
        assert client.post("/sdapi/v1/interrupt", headers=stranger).json() == {}
        assert client.post("/sdapi/v1/skip", headers=stranger).json() == {}
    assert worker.step(job_of_alice, 5, 20) == worker.step(job_of_bob, 5, 20) == "ok"
    assert client.post("/sdapi/v1/interrupt", headers=bob).json() == {}
    assert (worker.step(job_of_alice, 6, 20), worker.step(job_of_bob, 6, 20)) == ("ok", "cancel")


def test_jobs_of_other_apis_do_not_show(client: httpx2.Client, worker: ManualWorker) -> None:
    job_id = client.post("/generate", json={"prompt": "1girl"}).json()["id"]
    assert is_idle(read_progress(client))
    client.post("/sdapi/v1/interrupt")
    assert client.get(f"/jobs/{job_id}").json()["status"] == "queued"
    assert worker.queued_ids() == [job_id]


def test_behind_an_untrusted_proxy_only_credentials_identify_a_client(
    client: httpx2.Client, worker: ManualWorker, start_call: StartCall
) -> None:
    """All clients have the address of the proxy."""
    via = {"via": "1.1 proxy"}
    start_call(via, is_anonymous=True)
    assert is_idle(read_progress(client, via))
    client.post("/sdapi/v1/interrupt", headers=via)
    named = via | basic_auth("alice:1")
    _, job_id = start_call(named)
    assert read_progress(client, named)["current_task"] == job_id
    assert is_idle(read_progress(client, via | basic_auth("bob:1")))
    assert len(worker.queued_ids()) == 2


def test_behind_a_trusted_proxy_the_forwarded_address_identifies_a_client(
    client: httpx2.Client, start_call: StartCall
) -> None:
    """uvicorn trusts proxies on the same machine by default."""
    one, other = {"x-forwarded-for": "203.0.113.7"}, {"x-forwarded-for": "203.0.113.70"}
    _, job_id = start_call(one)
    assert read_progress(client, one)["current_task"] == job_id
    assert is_idle(read_progress(client, other))


@pytest.mark.parametrize("mark", ["CF-Connecting-IP", "X-Forwarded-Host", "Fly-Client-IP", "Via"])
def test_behind_a_proxy_of_any_kind_the_address_identifies_nobody(mark: str) -> None:
    """Otherwise `interrupt` of one client would stop the jobs of all."""

    def name_with(headers: list[tuple[bytes, bytes]]) -> str | None:
        scope = {"type": "http", "client": ("127.0.0.1", 1), "headers": headers}
        return client_name(Request(scope), "")

    assert name_with([]) is not None
    assert name_with([(mark.lower().encode(), b"203.0.113.7")]) is None


def test_api_keys_identify_clients(
    settings: Settings, redis_url: str, worker: ManualWorker
) -> None:
    secrets = []
    for name in ("alice", "bob"):
        secret, key = make_key(name)
        add_key(worker.redis, key)
        secrets.append(secret)
    with (
        ApiServer(settings.model_copy(update={"auth": "required"})) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        refused = client.get("/sdapi/v1/options")
        read_a1111_error(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"].startswith("Basic ")
        alice, bob = (basic_auth(f"any:{secret}") for secret in secrets)
        response = client.post(TXT2IMG, json={"prompt": "x"}, headers=NO_WAIT | alice)
        job_id = response.json()["job_id"]
        assert is_idle(read_progress(client, bob))
        client.post("/sdapi/v1/interrupt", headers=bob)
        assert client.get(f"/jobs/{job_id}", headers=bob).status_code == 404
        # The key identifies the client behind any proxy.
        assert read_progress(client, alice | {"via": "1.1 proxy"})["current_task"] == job_id
        client.post("/sdapi/v1/interrupt", headers=alice)
        assert client.get(f"/jobs/{job_id}", headers=alice).json()["status"] == "cancelled"

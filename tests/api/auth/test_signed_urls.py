"""Signed URLs: what they open, and for how long."""

import json
import time

import httpx2
import pytest
from redis import Redis

from api.auth import signed_urls
from tests.support.api_keys import BODY, bearer, make_key, status_with
from tests.support.api_server import ApiServer
from tests.support.waiting import wait_until
from worker.auth.key_store import add_key, revoke_key
from worker.settings import Settings


def test_signed_urls_need_no_header(public_client: httpx2.Client, redis_client: "Redis") -> None:
    secret, key = make_key("alice")
    add_key(redis_client, key)
    wait_until(lambda: status_with(public_client, bearer(secret)) == 200)
    job = public_client.post("/generate", json=BODY, headers=bearer(secret)).json()
    answer = public_client.post(f"/jobs/{job['id']}/links", headers=bearer(secret))
    assert answer.headers["cache-control"] == "no-store"
    links = answer.json()
    assert links["images"] == []
    assert secret not in answer.text
    public_client.delete(f"/jobs/{job['id']}", headers=bearer(secret))
    events = public_client.get(links["events"])
    assert events.status_code == 200
    assert "event: cancelled" in events.text
    token = links["events"].partition("?token=")[2]
    for method, path in (
        ("GET", f"/jobs/{job['id']}"),
        ("DELETE", f"/jobs/{job['id']}"),
        ("POST", f"/jobs/{job['id']}/events"),
        ("GET", "/capabilities"),
    ):
        assert public_client.request(method, f"{path}?token={token}").status_code == 401, path
    path = f"/jobs/{job['id']}/events"
    for forged in (token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), f"9{token}", ""):
        assert public_client.get(path, params={"token": forged}).status_code == 401
    revoke_key(redis_client, "alice")
    wait_until(lambda: public_client.get(links["events"]).status_code == 401)


def test_a_signed_url_can_only_read(public_client: httpx2.Client, redis_client: "Redis") -> None:
    secret, key = make_key("alice")
    add_key(redis_client, key)
    wait_until(lambda: status_with(public_client, bearer(secret)) == 200)
    job = public_client.post("/generate", json=BODY, headers=bearer(secret)).json()
    links = public_client.post(f"/jobs/{job['id']}/links", headers=bearer(secret)).json()
    url = links["events"]
    path, _, token = url.partition("?token=")
    for changed in (
        f"{url}&cancel_on_disconnect=true",
        f"{path}?cancel_on_disconnect=true&token={token}",
        f"{url}&cancel%5Fon%5Fdisconnect=1",
        f"{url}&cancel_on_disconnect",
        f"{url}&cancel_on_disconnect=",
        f"{url}&anything=x",
        f"{url}&token={token}",
        f"{url}&&dry_run=true",
    ):
        with public_client.stream("GET", changed) as answer:
            assert answer.status_code == 401, changed
            assert "works only as it was made" in json.loads(answer.read())["detail"]
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert public_client.request(method, url).status_code == 401, method
    headers = {"X-HTTP-Method-Override": "DELETE"}
    with public_client.stream("GET", url, headers=headers) as stream:
        assert stream.status_code == 200
    found = public_client.get(f"/jobs/{job['id']}", headers=bearer(secret)).json()
    assert found["status"] == "queued"


def test_signature_expires() -> None:
    owner, secret = "0" * 16, "secret"
    live = signed_urls.sign("/a", owner, secret, until=time.time() + 60)
    assert signed_urls.owner_of(live, "/a", secret) == owner
    assert signed_urls.owner_of(live, "/b", secret) is None
    assert signed_urls.owner_of(live, "/a", "another secret") is None
    over = signed_urls.sign("/a", owner, secret, until=time.time() - 1)
    assert signed_urls.owner_of(over, "/a", secret) is None


@pytest.mark.usefixtures("redis_url")
def test_urls_are_unsigned_without_keys(settings: Settings) -> None:
    with ApiServer(settings) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        job = client.post("/generate", json=BODY).json()
        links = client.post(f"/jobs/{job['id']}/links").json()
        assert links["events"] == job["links"]["events"]

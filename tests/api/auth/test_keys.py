"""Who is let in: keys, how they are sent, when they are needed, and what an outage changes."""

import asyncio
import base64
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from redis import Redis
from starlette.datastructures import Headers

from api.auth import signed_urls
from api.auth.key_cache import KeyCache
from api.middleware import authentication as gate
from tests.support.api_keys import LISTENS_TO_ALL, make_key
from tests.support.api_server import ApiServer
from tests.support.waiting import wait_until
from worker.auth.api_keys import KeyLimits, new_secret
from worker.auth.key_store import KEYS, KEYS_VERSION, KeyFileError, add_key, revoke_key
from worker.redis_io import server as redis_server
from worker.settings import Settings

BODY = {"prompt": "1girl, smile", "steps": 1}


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[ApiServer]:
    with ApiServer(settings.model_copy(update={"listen": LISTENS_TO_ALL})) as running:
        yield running


@pytest.fixture
def keyed(served: ApiServer, redis_url: str) -> Iterator[httpx2.Client]:
    """A client without a key, of a service that others can reach."""
    with httpx2.Client(base_url=served.url, timeout=20) as client:
        yield client


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["Redis"]:
    with Redis.from_url(redis_url) as client:
        yield client


def _status(client: httpx2.Client, headers: dict[str, str], path: str = "/capabilities") -> int:
    return client.get(path, headers=headers).status_code


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_key_is_needed_where_others_reach_the_service(keyed: httpx2.Client) -> None:
    refused = keyed.get("/capabilities")
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"] == 'Bearer realm="kirazuri"'
    assert refused.json()["code"] == "unauthorized"
    wrong = keyed.get("/capabilities", headers=_bearer(new_secret()))
    assert wrong.status_code == 401
    assert wrong.headers["www-authenticate"].endswith('error="invalid_token"')
    assert "kzr_" not in wrong.text


def test_nothing_is_read_of_a_body_before_the_key(keyed: httpx2.Client) -> None:
    with socket.create_connection((keyed.base_url.host, keyed.base_url.port or 0), 10) as raw:
        raw.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert raw.recv(12) == b"HTTP/1.1 401"  # and not a byte of the body was sent
    assert keyed.post("/generate", content=b"no json").status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/docs", "/openapi.json", "/problems/unauthorized"])
def test_what_needs_no_key(keyed: httpx2.Client, path: str) -> None:
    assert keyed.get(path).status_code == 200
    assert keyed.get("/").status_code == 307
    assert keyed.get("/readyz").status_code == 503  # no worker


@pytest.mark.parametrize("path", ["/metrics", "/nowhere", "/images/x.png", "/problems", "/docs/"])
def test_all_else_is_closed(keyed: httpx2.Client, path: str) -> None:
    assert keyed.get(path).status_code == 401


def test_a_key_comes_and_goes_within_seconds(
    keyed: httpx2.Client, redis_client: "Redis", served: ApiServer
) -> None:
    secret, key = make_key("alice")
    assert _status(keyed, _bearer(secret)) == 401
    assert add_key(redis_client, key)
    assert not add_key(redis_client, make_key("alice")[1]), "the name is taken"
    wait_until(lambda: _status(keyed, _bearer(secret)) == 200)
    assert _status(keyed, {"Authorization": f"bearer   {secret}"}) == 200
    assert _status(keyed, _basic("alice", secret)) == 200
    assert _status(keyed, _basic(secret, "")) == 200
    assert _status(keyed, _basic(secret, "x")) == 200
    wrong = (
        {"Authorization": "Bearer"},
        _bearer(secret[:-1]),
        _bearer(f"{secret}x"),
        _bearer(key.hash),
        _bearer(key.id),
        _basic("alice", "x"),
        {"Authorization": secret},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic /w=="},
        {"Authorization": f"Digest {secret}"},
    )
    assert [_status(keyed, headers) for headers in wrong] == [401] * len(wrong)
    assert _status(keyed, {}, f"/capabilities?token={secret}") == 401
    assert revoke_key(redis_client, "alice")
    assert not revoke_key(redis_client, "alice")
    wait_until(lambda: _status(keyed, _bearer(secret)) == 401)


def test_only_hashes_are_kept(redis_client: "Redis") -> None:
    secret, key = make_key("alice", rate="60/minute")
    add_key(redis_client, key)
    kept = redis_client.hgetall(KEYS)
    assert secret.encode() not in repr(kept).encode()
    assert key.hash.encode() in next(iter(kept.values()))
    assert len(secret) == 47
    assert key.id == key.hash[:16]


def test_a_key_that_is_not_understood_opens_nothing(
    keyed: httpx2.Client, redis_client: "Redis"
) -> None:
    secret, key = make_key("newer")
    add_key(redis_client, key)
    newer = key.model_dump_json().replace('"limits":{', '"limits":{"moon_phase":"full",')
    redis_client.hset(KEYS, "newer", newer)
    other, known = make_key("other")
    add_key(redis_client, known)
    wait_until(lambda: _status(keyed, _bearer(other)) == 200)
    assert _status(keyed, _bearer(secret)) == 401


def test_browsers_get_links_that_need_no_header(
    keyed: httpx2.Client, redis_client: "Redis"
) -> None:
    secret, key = make_key("alice")
    add_key(redis_client, key)
    wait_until(lambda: _status(keyed, _bearer(secret)) == 200)
    job = keyed.post("/generate", json=BODY, headers=_bearer(secret)).json()
    answer = keyed.post(f"/jobs/{job['id']}/links", headers=_bearer(secret))
    assert answer.headers["cache-control"] == "no-store"
    links = answer.json()
    assert links["images"] == []
    assert secret not in answer.text
    keyed.delete(f"/jobs/{job['id']}", headers=_bearer(secret))
    events = keyed.get(links["events"])
    assert events.status_code == 200
    assert "event: cancelled" in events.text
    token = links["events"].partition("?token=")[2]
    for method, path in (
        ("GET", f"/jobs/{job['id']}"),
        ("DELETE", f"/jobs/{job['id']}"),
        ("POST", f"/jobs/{job['id']}/events"),
        ("GET", "/capabilities"),
    ):
        assert keyed.request(method, f"{path}?token={token}").status_code == 401, path
    path = f"/jobs/{job['id']}/events"
    for forged in (token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), f"9{token}", ""):
        assert keyed.get(path, params={"token": forged}).status_code == 401
    revoke_key(redis_client, "alice")
    wait_until(lambda: keyed.get(links["events"]).status_code == 401)


def test_a_link_is_over_after_its_time() -> None:
    owner, secret = "0" * 16, "secret"
    live = signed_urls.sign("/a", owner, secret, until=time.time() + 60)
    assert signed_urls.owner_of(live, "/a", secret) == owner
    assert signed_urls.owner_of(live, "/b", secret) is None
    assert signed_urls.owner_of(live, "/a", "another secret") is None
    over = signed_urls.sign("/a", owner, secret, until=time.time() - 1)
    assert signed_urls.owner_of(over, "/a", secret) is None


@pytest.mark.usefixtures("redis_url")
def test_without_keys_links_need_no_token(settings: Settings) -> None:
    with ApiServer(settings) as running, httpx2.Client(base_url=running.url) as client:
        job = client.post("/generate", json=BODY).json()
        links = client.post(f"/jobs/{job['id']}/links").json()
        assert links["events"] == job["links"]["events"]


# -- when a key is needed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "server", "headers", "is_local"),
    [
        (None, "127.0.0.1", {"host": "127.0.0.1:8000"}, True),
        (None, "127.0.0.1", {"host": "localhost:8000"}, True),
        (None, "127.0.0.1", {}, True),
        (None, "::1", {"host": "[::1]:8000"}, True),
        (None, "10.0.0.5", {"host": "10.0.0.5"}, False),
        (None, "/run/api.sock", {"host": "localhost"}, False),
        ("127.0.0.1:8000", "172.18.0.3", {"host": "127.0.0.1:8000"}, True),
        ("127.0.0.1:8000", "172.18.0.3", {"host": "api:8000"}, True),
        ("[::1]:8000", "172.18.0.3", {"host": "localhost"}, True),
        ("::1:8000", "::1", {"host": "localhost"}, True),
        ("localhost:8000", "127.0.0.1", {"host": "localhost"}, True),
        ("0.0.0.0:8000", "127.0.0.1", {"host": "localhost"}, False),
        (":::8000", "::1", {"host": "localhost"}, False),
        ("8000", "127.0.0.1", {"host": "localhost"}, False),
        (":8000", "127.0.0.1", {"host": "localhost"}, False),
        ("art.example:8000", "127.0.0.1", {"host": "localhost"}, False),
        # DNS rebinding, and proxies on the same machine.
        (None, "127.0.0.1", {"host": "rebound.example:8000"}, False),
        (None, "127.0.0.1", {"host": "localhost", "x-forwarded-for": "203.0.113.9"}, False),
        (None, "127.0.0.1", {"host": "localhost", "forwarded": "for=203.0.113.9"}, False),
        (None, "127.0.0.1", {"host": "localhost", "via": "1.1 edge"}, False),
    ],
)
def test_what_counts_as_this_machine(
    listen: str | None, server: str, headers: dict[str, str], is_local: bool
) -> None:
    assert gate._is_local({"server": (server, 8000)}, Headers(headers), listen) is is_local


def test_the_first_key_closes_a_local_service_and_the_last_one_leaves_it_closed(
    settings: Settings, redis_client: "Redis"
) -> None:
    with ApiServer(settings) as running, httpx2.Client(base_url=running.url) as client:
        # SillyTavern always sends Basic, also to a service without keys.
        assert _status(client, _basic("", "")) == 200
        assert _status(client, {"Host": "rebound.example"}) == 401
        add_key(redis_client, make_key("alice")[1])
        wait_until(lambda: _status(client, {}) == 401)
        revoke_key(redis_client, "alice")
        redis_client.delete(KEYS_VERSION)
        time.sleep(1.2)
        assert _status(client, {}) == 401


def test_an_empty_store_that_once_had_keys_stays_closed_after_a_restart(
    settings: Settings, redis_client: "Redis"
) -> None:
    add_key(redis_client, make_key("alice")[1])
    revoke_key(redis_client, "alice")
    with ApiServer(settings) as running:
        assert httpx2.get(f"{running.url}/capabilities").status_code == 401


def test_off_asks_nobody(settings: Settings, redis_client: "Redis") -> None:
    add_key(redis_client, make_key("alice")[1])
    with ApiServer(
        settings.model_copy(update={"auth": "off", "listen": LISTENS_TO_ALL})
    ) as running:
        assert httpx2.get(f"{running.url}/capabilities").status_code == 200


# -- outages ---------------------------------------------------------------------------------


def test_without_redis_nothing_opens_and_known_keys_go_on(
    settings: Settings, tmp_path: Path
) -> None:
    secret, key = make_key("from-the-file", concurrency=2)
    file = tmp_path / "keys.toml"
    file.write_text(f'[from-the-file]\nhash = "{key.hash}"\nconcurrency = 2\n')
    away = settings.model_copy(
        update={"redis_url": SecretStr("redis://127.0.0.1:9"), "keys_file": file}
    )
    with ApiServer(away) as running, httpx2.Client(base_url=running.url) as client:
        unknown = client.get("/capabilities", headers=_bearer(new_secret()))
        assert (unknown.status_code, unknown.json()["code"]) == (503, "queue_unavailable")
        assert client.get("/capabilities").status_code == 503
        assert client.get("/problems/unauthorized").status_code == 200
        assert client.get("/metrics", headers=_bearer(secret)).status_code == 200


async def test_it_closes_in_the_middle_of_a_look(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.key_cache.REFRESH_SECONDS", 0)
    for _ in range(6):
        ring = KeyCache()
        await ring.open(redis_url)
        await asyncio.sleep(0.002)
        async with asyncio.timeout(10):
            await ring.close()


async def test_what_redis_last_said_holds_while_it_is_away(tmp_path: Path) -> None:
    secret, key = make_key("alice")
    server = redis_server.start(tmp_path / "redis")
    ring = KeyCache()
    try:
        with Redis.from_url(server.url) as client:
            add_key(client, key)
        await ring.open(server.url)
        assert ring.find(secret) == key
        server.stop()
        await ring._refresh()
        assert ring.find(secret) == key
        assert ring.has_had_keys
    finally:
        await ring.close()
        server.stop()


# -- the file --------------------------------------------------------------------------------


async def test_the_file_is_read_again_when_it_changes(tmp_path: Path, redis_url: str) -> None:
    file = tmp_path / "keys.toml"
    secret, key = make_key("alice")
    file.write_text("")
    ring = KeyCache(file)
    await ring.open(redis_url)
    try:
        assert not ring.has_had_keys
        file.write_text(f'[alice]\nhash = "{key.hash}"\nloras = []\nrate = "10/hour"\n')
        await ring._refresh()
        found = ring.find(secret)
        assert found
        assert found.limits == KeyLimits(loras=(), rate="10/hour")
        file.write_text("[alice\n")
        await ring._refresh()
        assert ring.find(secret) == found, "a broken file changes nothing"
        file.unlink()
        await ring._refresh()
        assert ring.find(secret) == found, "a missing one neither"
        file.write_text("")
        await ring._refresh()
        assert ring.find(secret) is None
        assert ring.has_had_keys
    finally:
        await ring.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("alice = 1", "alice is not a table"),
        ("[alice]\n", r"\[alice\] hash: Field required"),
        ('[alice]\nhash = "abc"', r"\[alice\] hash: String should match"),
        (f'[alice]\nhash = "{"0" * 64}"\nspeed = 3', r"\[alice\] limits.speed: Extra inputs"),
        (f'["a b"]\nhash = "{"0" * 64}"', r"\[a b\] name: "),
        (f'[alice]\nhash = "{"0" * 64}"\nrate = "fast"', r"limits.rate: "),
        ("[", "keys.toml: "),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(KeyFileError, match=told) as caught:
        KeyCache(file)
    assert "0" * 64 not in str(caught.value)


def test_keys_take_turns_by_their_priority(keyed: httpx2.Client, redis_client: "Redis") -> None:
    secrets = {}
    for name, priority in (("greedy", "normal"), ("modest", "normal"), ("urgent", "high")):
        secrets[name], key = make_key(name, priority=priority)
        add_key(redis_client, key)
        wait_until(lambda name=name: _status(keyed, _bearer(secrets[name])) == 200)  # type: ignore[misc]
    ids = {}
    for name in ("greedy", "greedy", "modest", "urgent", "urgent"):
        answer = keyed.post("/generate", json=BODY, headers=_bearer(secrets[name]))
        ids[name] = answer.json()["id"]
    # All have their first turn at the same time; then the urgent key's comes four times as soon.
    for name, place in (("modest", 1), ("urgent", 3), ("greedy", 4)):
        job = keyed.get(f"/jobs/{ids[name]}", headers=_bearer(secrets[name])).json()
        assert job["queue_position"] == place

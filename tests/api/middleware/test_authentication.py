"""Authentication: when a key is needed, and how clients send it."""

import base64
import socket

import httpx2
import pytest
from redis import Redis
from starlette.datastructures import Headers

from api.middleware import authentication
from tests.support.api_keys import BODY, LISTENS_TO_ALL, bearer, make_key, status_with
from tests.support.api_server import ApiServer
from tests.support.waiting import wait_until
from worker.auth.api_keys import new_secret
from worker.auth.key_store import KEYS_VERSION, add_key, revoke_key
from worker.settings import Settings


def basic(user: str, password: str) -> dict[str, str]:
    """The header of Basic authentication."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_requires_a_key_if_other_machines_reach_the_service(public_client: httpx2.Client) -> None:
    refused = public_client.get("/capabilities")
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["www-authenticate"] == 'Bearer realm="kirazuri"'
    assert refused.json()["code"] == "unauthorized"
    wrong = public_client.get("/capabilities", headers=bearer(new_secret()))
    assert wrong.status_code == 401
    assert wrong.headers["www-authenticate"].endswith('error="invalid_token"')
    assert "kzr_" not in wrong.text


def test_checks_the_key_before_reading_the_body(public_client: httpx2.Client) -> None:
    address = (public_client.base_url.host, public_client.base_url.port or 0)
    with socket.create_connection(address, 60) as raw:
        raw.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert raw.recv(12) == b"HTTP/1.1 401"  # without a byte of the body
    assert public_client.post("/generate", content=b"no json").status_code == 401


def test_public_paths(public_client: httpx2.Client) -> None:
    for path in ("/", "/livez", "/docs", "/openapi.json", "/problems/unauthorized"):
        assert public_client.get(path).status_code == 200, path
    assert public_client.get("/readyz").status_code == 503  # no worker


def test_all_other_paths_need_a_key(public_client: httpx2.Client) -> None:
    for path in ("/metrics", "/nowhere", "/images/x.png", "/problems", "/docs/"):
        assert public_client.get(path).status_code == 401, path


def test_new_and_revoked_keys(public_client: httpx2.Client, redis_client: "Redis") -> None:
    secret, key = make_key("alice")
    assert status_with(public_client, bearer(secret)) == 401
    assert add_key(redis_client, key)
    assert not add_key(redis_client, make_key("alice")[1]), "the name is taken"
    wait_until(lambda: status_with(public_client, bearer(secret)) == 200)
    assert status_with(public_client, {"Authorization": f"bearer   {secret}"}) == 200
    assert status_with(public_client, basic("alice", secret)) == 200
    assert status_with(public_client, basic(secret, "")) == 200
    assert status_with(public_client, basic(secret, "x")) == 200
    wrong = (
        {"Authorization": "Bearer"},
        bearer(secret[:-1]),
        bearer(f"{secret}x"),
        bearer(key.hash),
        bearer(key.id),
        basic("alice", "x"),
        {"Authorization": secret},
        {"Authorization": "Basic %%%"},
        {"Authorization": "Basic /w=="},
        {"Authorization": f"Digest {secret}"},
    )
    assert [status_with(public_client, headers) for headers in wrong] == [401] * len(wrong)
    assert status_with(public_client, {}, f"/capabilities?token={secret}") == 401
    assert revoke_key(redis_client, "alice")
    assert not revoke_key(redis_client, "alice")
    wait_until(lambda: status_with(public_client, bearer(secret)) == 401)


LOCAL_REQUESTS: list[tuple[str | None, str, dict[str, str], bool]] = [
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
    # DNS rebinding, and proxies on the same machine
    (None, "127.0.0.1", {"host": "rebound.example:8000"}, False),
    (None, "127.0.0.1", {"host": "localhost", "x-forwarded-for": "203.0.113.9"}, False),
    (None, "127.0.0.1", {"host": "localhost", "forwarded": "for=203.0.113.9"}, False),
    (None, "127.0.0.1", {"host": "localhost", "via": "1.1 edge"}, False),
]
"""Listen address, address of the connection, headers, and whether the request is local."""

PROXY_MARKS = (
    *("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"),
    *("X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded", "Via"),
    *("X-Real-IP", "X-Client-IP", "Client-IP", "X-Cluster-Client-IP", "X-Original-Host"),
    *("X-Original-Forwarded-For", "X-Original-URL", "X-Scheme", "X-Host", "Front-End-Https"),
    *("CF-Connecting-IP", "CF-Ray", "CF-Visitor", "CDN-Loop", "True-Client-IP"),
    *("Fly-Client-IP", "Fly-Forwarded-Proto", "X-Envoy-External-Address", "X-Envoy-Peer-Metadata"),
    *("Tailscale-User-Login", "Tailscale-Funnel-Request", "Ngrok-Auth-User-Email"),
    *("Fastly-Client-IP", "X-Azure-ClientIP", "X-ARR-SSL", "X-Amzn-Trace-Id", "X-Amz-Cf-Id"),
    *("X-Auth-Request-User", "X-Pomerium-Jwt-Assertion", "Remote-User", "X-Varnish"),
)
"""Headers of reverse proxies, tunnels, content networks and sign-in proxies."""


def test_requests_of_this_machine() -> None:
    wrong = [
        (listen, server, headers)
        for listen, server, headers, is_local in LOCAL_REQUESTS
        if authentication._is_local({"server": (server, 8000)}, Headers(headers), listen)
        is not is_local
    ]
    assert wrong == []


def is_local(headers: dict[str, str]) -> bool:
    headers = {"host": "localhost:8000", **headers}
    return authentication._is_local({"server": ("127.0.0.1", 8000)}, Headers(headers), None)


@pytest.mark.parametrize("mark", PROXY_MARKS)
def test_a_request_with_the_mark_of_a_proxy_is_not_local(mark: str) -> None:
    assert is_local({})
    assert not is_local({mark: "x"})
    assert not is_local({mark.lower(): ""})


def test_what_programs_of_this_machine_send_is_no_mark_of_a_proxy() -> None:
    names = (
        *("User-Agent", "Accept", "Origin", "Referer", "X-Request-Id", "X-Stainless-Lang", "DNT"),
        *("X-Requested-With", "Sec-Fetch-Site", "Priority", "Traceparent", "X-Title"),
        *("HTTP-Referer", "Prefer", "Proxy-Connection"),
    )
    assert is_local(dict.fromkeys(names, "x"))


def test_local_service_needs_keys_after_the_first_key(
    settings: Settings, redis_client: "Redis"
) -> None:
    with ApiServer(settings) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        # SillyTavern always sends Basic, even without keys.
        assert status_with(client, basic("", "")) == 200
        assert status_with(client, {"Host": "rebound.example"}) == 401
        assert status_with(client, {"CF-Connecting-IP": "203.0.113.9"}) == 401
        secret, key = make_key("alice")
        add_key(redis_client, key)
        wait_until(lambda: status_with(client, {}) == 401)
        assert status_with(client, bearer(secret)) == 200
        revoke_key(redis_client, "alice")
        redis_client.delete(KEYS_VERSION)
        wait_until(lambda: status_with(client, bearer(secret)) == 401)
        assert status_with(client, {}) == 401


def test_still_needs_keys_after_a_restart_without_keys(
    settings: Settings, redis_client: "Redis"
) -> None:
    add_key(redis_client, make_key("alice")[1])
    revoke_key(redis_client, "alice")
    with ApiServer(settings) as server:
        assert httpx2.get(f"{server.url}/capabilities", timeout=60).status_code == 401


def test_auth_off_needs_no_key(settings: Settings, redis_client: "Redis") -> None:
    add_key(redis_client, make_key("alice")[1])
    with ApiServer(settings.model_copy(update={"auth": "off", "listen": LISTENS_TO_ALL})) as server:
        assert httpx2.get(f"{server.url}/capabilities", timeout=60).status_code == 200


def test_priority_of_keys(public_client: httpx2.Client, redis_client: "Redis") -> None:
    secrets = {}
    for name, priority in (("greedy", "normal"), ("modest", "normal"), ("urgent", "high")):
        secrets[name], key = make_key(name, priority=priority)
        add_key(redis_client, key)
        wait_until(lambda name=name: status_with(public_client, bearer(secrets[name])) == 200)  # type: ignore[misc]
    ids = {}
    for name in ("greedy", "greedy", "modest", "urgent", "urgent"):
        answer = public_client.post("/generate", json=BODY, headers=bearer(secrets[name]))
        ids[name] = answer.json()["id"]
    # All first turns come together; then the urgent key has four turns for one of the others.
    for name, place in (("modest", 1), ("urgent", 3), ("greedy", 4)):
        job = public_client.get(f"/jobs/{ids[name]}", headers=bearer(secrets[name])).json()
        assert job["queue_position"] == place

"""The key cache: keys of Redis and of the file, changes and outages."""

import asyncio
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from redis import Redis

from api.auth.key_cache import KeyCache
from tests.support.api_keys import bearer, make_key, status_with
from tests.support.api_server import ApiServer
from tests.support.waiting import async_wait_until, wait_until
from worker.auth.api_keys import KeyLimits, new_secret
from worker.auth.key_store import KEYS, KEYS_VERSION, KeyFileError, add_key, revoke_key
from worker.redis_io import server as redis_server
from worker.settings import Settings
from worker.telemetry.background import FAILURES


def test_redis_keeps_only_hashes(redis_client: "Redis") -> None:
    secret, key = make_key("alice", rate="60/minute")
    add_key(redis_client, key)
    kept = redis_client.hgetall(KEYS)
    assert secret.encode() not in repr(kept).encode()
    assert key.hash.encode() in next(iter(kept.values()))
    assert len(secret) == 47
    assert key.id == key.hash[:16]


def test_key_of_a_newer_release_is_ignored(
    public_client: httpx2.Client, redis_client: "Redis"
) -> None:
    secret, key = make_key("newer")
    add_key(redis_client, key)
    newer = key.model_dump_json().replace('"limits":{', '"limits":{"moon_phase":"full",')
    redis_client.hset(KEYS, "newer", newer)
    other, known = make_key("other")
    add_key(redis_client, known)
    wait_until(lambda: status_with(public_client, bearer(other)) == 200)
    assert status_with(public_client, bearer(secret)) == 401


def test_without_redis_only_keys_of_the_file_work(settings: Settings, tmp_path: Path) -> None:
    secret, key = make_key("from-the-file", concurrency=2)
    file = tmp_path / "keys.toml"
    file.write_text(f'[from-the-file]\nhash = "{key.hash}"\nconcurrency = 2\n')
    away = settings.model_copy(
        update={"redis_url": SecretStr("redis://127.0.0.1:9"), "keys_file": file}
    )
    with ApiServer(away) as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        unknown = client.get("/capabilities", headers=bearer(new_secret()))
        assert (unknown.status_code, unknown.json()["code"]) == (503, "queue_unavailable")
        assert client.get("/capabilities").status_code == 503
        assert client.get("/problems/unauthorized").status_code == 200
        assert client.get("/metrics", headers=bearer(secret)).status_code == 200


async def test_a_failing_watcher_starts_again(
    redis_url: str, redis_client: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.telemetry.background.FIRST_PAUSE_SECONDS", 0.01)
    secret, key = make_key("alice")
    add_key(redis_client, key)
    cache, before = KeyCache(), FAILURES["keys"]
    await cache.open(redis_url)
    assert cache.find(secret)
    redis_client.set(KEYS_VERSION, b"\xff")  # no text
    await async_wait_until(lambda: FAILURES["keys"] > before)
    revoke_key(redis_client, "alice")
    await async_wait_until(lambda: cache.find(secret) is None)
    await cache.close()


async def test_unreadable_keys_do_not_keep_the_service_from_starting(
    redis_url: str, redis_client: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.telemetry.background.FIRST_PAUSE_SECONDS", 0.01)
    redis_client.set(KEYS, "not a hash")
    cache = KeyCache()
    await cache.open(redis_url)
    assert not cache.is_known
    redis_client.delete(KEYS)
    await async_wait_until(lambda: cache.is_known)
    await cache.close()


async def test_closes_during_a_refresh(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.key_cache.REFRESH_SECONDS", 0)
    for _ in range(6):
        cache = KeyCache()
        await cache.open(redis_url)
        await asyncio.sleep(0.002)
        async with asyncio.timeout(60):
            await cache.close()


async def test_known_keys_work_during_an_outage(tmp_path: Path) -> None:
    secret, key = make_key("alice")
    server = redis_server.start(tmp_path / "redis")
    cache = KeyCache()
    try:
        with Redis.from_url(server.url) as client:
            add_key(client, key)
        await cache.open(server.url)
        assert cache.find(secret) == key
        server.stop()
        await cache._refresh()
        assert cache.find(secret) == key
        assert cache.has_had_keys
    finally:
        await cache.close()
        server.stop()


async def test_reloads_a_changed_file(tmp_path: Path, redis_url: str) -> None:
    file = tmp_path / "keys.toml"
    secret, key = make_key("alice")
    file.write_text("")
    cache = KeyCache(file)
    await cache.open(redis_url)
    try:
        assert not cache.has_had_keys
        file.write_text(f'[alice]\nhash = "{key.hash}"\nloras = []\nrate = "10/hour"\n')
        await cache._refresh()
        found = cache.find(secret)
        assert found
        assert found.limits == KeyLimits(loras=(), rate="10/hour")
        file.write_text("[alice\n")
        await cache._refresh()
        assert cache.find(secret) == found, "a broken file changes nothing"
        file.unlink()
        await cache._refresh()
        assert cache.find(secret) == found, "a missing file changes nothing"
        file.write_text("")
        await cache._refresh()
        assert cache.find(secret) is None
        assert cache.has_had_keys
    finally:
        await cache.close()


def test_invalid_file_at_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    for text, reason in (
        ('hidden = "kzr_hidden"', "entry 1 is not a table"),
        (f"kzr_{'h' * 43} = {{}}", "entry 1 hash: Field required"),
        (f'["{"h" * 25}"]', "entry 1 hash: Field required"),
        ("[alice]\n[hidden]\n[hidden]\n", r"keys.toml: it is not valid TOML at line 3, column 8$"),
        ('[alice]\nhash = "hidden', r"keys.toml: it is not valid TOML at "),
        ("[alice]\n", r"\[alice\] hash: Field required"),
        ('[alice]\nhash = "abc"', r"\[alice\] hash: String should match"),
        (
            f'[alice]\nhash = "{"0" * 64}"\nspeed = 3',
            r"\[alice\] has an entry that is none of hash, .*rate",
        ),
        (f'[alice]\nhash = "{"0" * 64}"\nhidden = 3', "has an entry that is none of"),
        (f'["a b"]\nhash = "{"0" * 64}"', "entry 1 name: "),
        (f'[alice]\nhash = "{"0" * 64}"\nrate = "fast"', r"limits.rate: "),
        ("[", "keys.toml: "),
    ):
        file.write_text(text)
        with pytest.raises(KeyFileError, match=reason) as caught:
            KeyCache(file)
        told = str(caught.value)
        assert not any(secret in told for secret in ("0" * 64, "hidden", "h" * 25, "kzr_"))

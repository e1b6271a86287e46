"""Limits of keys: refusals, and the headers that show what is left."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx2
import pytest
from redis import Redis

from api.auth.caller import Caller
from api.auth.key_limits import KeyLimitCheck, LimitState, headers
from api.http.errors import KeyForbids
from model.card import load_card
from tests.support.api_keys import LISTENS_TO_ALL, make_key
from tests.support.api_server import ApiServer
from tests.support.lora_files import write
from tests.support.manual_worker import ManualWorker
from tests.support.requests import make_request
from tests.support.waiting import wait_until
from worker.auth.api_keys import KeyLimits
from worker.auth.key_store import add_key
from worker.settings import Settings

BODY = {"prompt": "1girl, smile", "steps": 1, "resolution": "square"}

NewClient = Callable[..., httpx2.Client]


@pytest.fixture(scope="module")
def limited_server(settings: Settings) -> Iterator[ApiServer]:
    folder = settings.data_dir / "loras"
    for name in ("cats", "hats"):
        write(folder / f"{name}.safetensors")
    changes: dict[str, Any] = {"max_queue": 50, "sync_wait_seconds": 0.1, "lora_dir": folder}
    with ApiServer(settings.model_copy(update=changes | {"listen": LISTENS_TO_ALL})) as running:
        yield running


@pytest.fixture
def client_of(limited_server: ApiServer, redis_url: str) -> Iterator[NewClient]:
    """`client_of(rate="2/hour")` is a client with a new key that has these limits."""
    opened: list[httpx2.Client] = []

    def make(**limits: Any) -> httpx2.Client:
        secret, key = make_key(f"key{len(opened)}", **limits)
        with Redis.from_url(redis_url) as connection:
            add_key(connection, key)
        client = httpx2.Client(
            base_url=limited_server.url, headers={"Authorization": f"Bearer {secret}"}, timeout=60
        )
        opened.append(client)
        wait_until(lambda: client.get("/capabilities").status_code == 200)
        return client

    yield make
    for client in opened:
        client.close()


def submit(client: httpx2.Client, **changes: Any) -> httpx2.Response:
    return client.post("/generate", json=BODY | changes)


def test_rate_limit(client_of: NewClient) -> None:
    client, other = client_of(rate="2/hour"), client_of(rate="2/hour")
    first = submit(client)
    assert first.status_code == 202
    assert first.headers["ratelimit-policy"] == '"rate";q=2;w=3600'
    assert first.headers["ratelimit"].startswith('"rate";r=1;t=')
    assert client.post("/generate", json=BODY, params={"dry_run": True}).status_code == 200
    refused = submit(client)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["ratelimit"].startswith('"rate";r=0;t=')
    replayed = client.post(f"/jobs/{first.json()['id']}/replay")
    assert replayed.status_code == 429
    for path in ("/v1/images/generations", "/sdapi/v1/txt2img"):
        dialect = client.post(path, json={"prompt": "1girl", "steps": 1})
        assert dialect.status_code == 429, path
        assert dialect.headers["ratelimit"].startswith('"rate";r=0;t=')
        assert "type" not in dialect.json(), "errors keep the format of the dialect"
    assert client.get("/jobs").status_code == 200, "only submissions count"
    assert "ratelimit" not in client.get("/jobs").headers
    assert submit(other).status_code == 202


def test_concurrency_limit(client_of: NewClient, worker: ManualWorker) -> None:
    client = client_of(concurrency=2)
    made = [submit(client, seed=seed) for seed in range(2)]
    assert [answer.status_code for answer in made] == [202, 202]
    left = [answer.headers["ratelimit"] for answer in made]
    assert left == ['"concurrency";r=1', '"concurrency";r=0']
    assert made[0].headers["ratelimit-policy"] == '"concurrency";q=2;qu="concurrent-requests"'
    refused = submit(client)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    worker.claim(made[0].json()["id"])
    worker.finish(made[0].json()["id"], b"a picture")
    client.delete(f"/jobs/{made[1].json()['id']}")
    assert submit(client).headers["ratelimit"] == '"concurrency";r=1'


def test_daily_quota(client_of: NewClient) -> None:
    cost = client_of().post("/generate", json=BODY, params={"dry_run": True}).json()["cost"]
    client = client_of(quota=1.5 * cost)
    first = submit(client)
    assert first.status_code == 202
    assert first.headers["ratelimit-policy"].endswith(';w=86400;qu="megapixel-steps"')
    refused = submit(client)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_spent")
    assert 0 < int(refused.headers["retry-after"]) <= 86_400


def test_key_without_submissions(client_of: NewClient) -> None:
    client = client_of(concurrency=0)
    refused = submit(client)
    assert (refused.status_code, refused.json()["code"]) == (403, "key_forbids")
    assert client.get("/metrics").status_code == 200


def test_allowed_resolutions(client_of: NewClient) -> None:
    client = client_of(resolutions=("square", "160x160", "a preset of another card"))
    assert submit(client).status_code == 202
    assert submit(client, resolution="160x160").status_code == 202
    refused = submit(client, resolution="portrait")
    assert (refused.status_code, refused.json()["code"]) == (403, "key_forbids")
    (error,) = refused.json()["errors"]
    assert error["pointer"] == "/resolution"
    assert error["limit"] == ["square", "160x160", "a preset of another card"]
    assert submit(client, hires={"scale": 1.25}).status_code == 202
    refused = submit(client, hires={"scale": 1.5})
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/hires/scale"]
    dry = client.post("/generate?dry_run=true", json=BODY | {"resolution": "portrait"})
    assert dry.status_code == 403


def test_allowed_loras_over_http(client_of: NewClient) -> None:
    client, other = client_of(loras=("hats",)), client_of()
    for reader, names in ((client, ["hats"]), (other, ["cats", "hats"])):
        listed = reader.get("/capabilities").json()["loras"]
        assert [lora["name"] for lora in listed] == names
        assert [lora["name"] for lora in reader.get("/sdapi/v1/loras").json()] == names
    assert submit(client, loras=[{"name": "hats"}]).status_code == 202
    refused = submit(client, loras=[{"name": "cats"}])
    assert (refused.status_code, refused.json()["code"]) == (403, "key_forbids")
    body = {"prompt": "1girl <lora:cats:1>", "steps": 1}
    assert client.post("/sdapi/v1/txt2img", json=body).status_code == 403
    assert submit(other, loras=[{"name": "cats"}]).status_code == 202


def test_allowed_loras() -> None:
    card = load_card("kirazuri-tiny")
    loras = [{"name": name, "weight": 1.0, "sha256": "0" * 64} for name in ("hats", "cats")]
    request = make_request(loras=loras)
    for allowed, wrong in ((None, []), (("cats", "hats"), []), (("hats",), [1]), ((), [0, 1])):
        caller = Caller(owner="0", limits=KeyLimits(loras=allowed))
        check = KeyLimitCheck(caller, cast(Any, None), card, cast(Any, None))
        if not wrong:
            check.check(request)
            continue
        with pytest.raises(KeyForbids) as caught:
            check.check(request)
        assert [error.pointer for error in caught.value.errors] == [
            f"/loras/{index}/name" for index in wrong
        ]


def test_headers_of_several_limits() -> None:
    limits = [
        LimitState("rate", 60, 60, None, 12, 34),
        LimitState("quota", 5000, 86_400, "megapixel-steps", 7, 3600),
    ]
    assert headers(limits) == {
        "RateLimit-Policy": '"rate";q=60;w=60, "quota";q=5000;w=86400;qu="megapixel-steps"',
        "RateLimit": '"rate";r=12;t=34, "quota";r=7;t=3600',
    }
    assert headers([]) == {}

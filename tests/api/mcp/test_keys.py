"""Keys, owners, limits and the policy through MCP: the same as everywhere."""

import httpx2
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ResourceLink

from tests.support.api_keys import bearer, make_key, wait_for_keys
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.mcp_clients import error_of, mcp_client, message, post, replies, text_of
from tests.support.mcp_clients import tool_call as call
from worker.auth.key_store import add_key
from worker.redis_io.client import connect
from worker.settings import Settings

PROMPT = "1girl, smile"


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "required"})


@pytest.fixture
def secrets(client: httpx2.Client, redis_url: str) -> dict[str, str]:
    """Secrets of four keys, once the service accepts them."""
    limits: dict[str, dict[str, object]] = {
        "alice": {"max_rating": "safe", "rate": "50/minute", "resolutions": ("128x128",)},
        "bob": {},
        "reader": {"concurrency": 0},
        "busy": {"concurrency": 1},
    }
    made = {name: make_key(name, **given) for name, given in limits.items()}
    with connect(redis_url) as connection:
        for _, key in made.values():
            assert add_key(connection, key)
    secrets = {name: secret for name, (secret, _) in made.items()}
    wait_for_keys(client, *secrets.values())
    return secrets


def test_without_a_key_nothing_is_answered(client: httpx2.Client, secrets: dict[str, str]) -> None:
    for headers in ({}, bearer("kzr_unknown")):
        for body in (message("tools/list"), call("list_presets"), b"[" * 100):
            answer = post(client, body, **headers)
            error = error_of(answer, 401)
            assert "Authorization: Bearer KEY" in error["message"]
            assert error["data"]["code"] == "unauthorized"
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert secrets


async def test_the_client_shows_why_it_is_refused(
    server: ApiServer, secrets: dict[str, str]
) -> None:
    assert secrets
    with pytest.raises(BaseExceptionGroup) as refused:
        async with mcp_client(server.url, "legacy"):
            raise AssertionError
    errors = refused.value.split(MCPError)[0]
    assert errors is not None
    assert "an API key is required" in repr(errors)


async def test_jobs_belong_to_the_key(
    server: ApiServer, secrets: dict[str, str], worker: ManualWorker, client: httpx2.Client
) -> None:
    async with mcp_client(server.url, "auto", key=secrets["bob"], waits=False) as mcp:
        await mcp.call_tool("generate_image", {"prompt": PROMPT})
    (job_id,) = worker.queued_ids()
    async with mcp_client(server.url, "auto", key=secrets["alice"], waits=False) as mcp:
        for tool in ("get_job", "cancel_job"):
            result = await mcp.call_tool(tool, {"job_id": job_id})
            assert result.is_error
            unknown = await mcp.call_tool(tool, {"job_id": "nonsense"})
            assert text_of(result).split(":")[0] == text_of(unknown).split(":")[0]
    assert worker.queued_ids() == [job_id]
    shown = client.get(f"/jobs/{job_id}", headers=bearer(secrets["bob"]))
    assert shown.json()["status"] == "queued"


async def test_links_open_without_a_header(
    server: ApiServer, secrets: dict[str, str], worker: ManualWorker
) -> None:
    async with mcp_client(server.url, "auto", key=secrets["bob"], waits=False) as mcp:
        await mcp.call_tool("generate_image", {"prompt": PROMPT})
        (job_id,) = worker.queued_ids()
        worker.claim(job_id)
        worker.finish(job_id, b"no picture")
        result = await mcp.call_tool("get_job", {"job_id": job_id})
    (link,) = [part for part in result.content if isinstance(part, ResourceLink)]
    assert httpx2.get(str(link.uri), timeout=60).content == b"no picture"
    assert httpx2.get(str(link.uri).partition("?")[0], timeout=60).status_code == 401


async def test_a_key_without_rights_reads_only(
    server: ApiServer, secrets: dict[str, str], worker: ManualWorker
) -> None:
    async with mcp_client(server.url, "auto", key=secrets["reader"]) as mcp:
        result = await mcp.call_tool("generate_image", {"prompt": PROMPT})
        presets = await mcp.call_tool("list_presets", {})
    assert result.is_error
    assert "this key allows no submissions" in text_of(result)
    assert not presets.is_error
    assert worker.queued_ids() == []


async def test_limits_of_a_key_are_told_with_field_value_and_limit(
    server: ApiServer, secrets: dict[str, str], worker: ManualWorker
) -> None:
    wrong = {"prompt": PROMPT, "resolution": "192x192"}
    async with mcp_client(server.url, "auto", key=secrets["alice"], waits=False) as mcp:
        result = await mcp.call_tool("generate_image", wrong)
    assert result.is_error
    assert "resolution: 192x192" in text_of(result)
    assert "(limit: 128x128)" in text_of(result)
    async with mcp_client(server.url, "auto", key=secrets["busy"], waits=False) as mcp:
        assert not (await mcp.call_tool("generate_image", {"prompt": PROMPT})).is_error
        second = await mcp.call_tool("generate_image", {"prompt": PROMPT})
    assert second.is_error
    assert "1" in text_of(second)
    assert len(worker.queued_ids()) == 1


def test_the_answer_says_what_is_left_of_the_limits(
    client: httpx2.Client, secrets: dict[str, str], worker: ManualWorker
) -> None:
    body = call("generate_image", prompt=PROMPT, resolution="128x128")
    answer = post(client, body, prefer="wait=0", **bearer(secrets["alice"]))
    (reply,) = replies(answer)
    assert reply["result"]["_meta"]["kirazuri/RateLimit"].startswith('"rate";r=49;')
    assert len(worker.queued_ids()) == 1


async def test_the_policy_names_its_rule(
    server: ApiServer, secrets: dict[str, str], worker: ManualWorker
) -> None:
    async with mcp_client(server.url, "auto", key=secrets["alice"]) as mcp:
        result = await mcp.call_tool(
            "generate_image", {"prompt": "1girl, nude", "resolution": "128x128"}
        )
    assert result.is_error
    assert "safe" in text_of(result)
    assert worker.queued_ids() == []

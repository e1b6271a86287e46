"""The official Python client of the Model Context Protocol."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import httpx2
from checks import KEY, PROMPT, URL, check, is_image, kept, makes_one_job, raised_by
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ImageContent, ResourceLink

FAST = {"prompt": PROMPT, "steps": 4}


def with_client(use: Callable[[Client], Awaitable[object]], key: str = KEY) -> object:
    """What the function returns for an open client."""

    async def run() -> object:
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=240) as http,
            Client(streamable_http_client(f"{URL}/mcp", http_client=http)) as client,
        ):
            return await use(client)

    return asyncio.run(run())


def call(tool: str, key: str = KEY, **arguments: object) -> CallToolResult:
    return with_client(lambda client: client.call_tool(tool, arguments), key)


def parts(result: CallToolResult, kind: type) -> list:
    assert not result.is_error, result.content
    found = [part for part in result.content if isinstance(part, kind)]
    assert found, result.content
    return found


@check("list tools")
def list_tools() -> None:
    tools = with_client(lambda client: client.list_tools()).tools
    assert {tool.name for tool in tools} >= {"generate_image", "get_job", "cancel_job"}


@check("generate")
def generate() -> None:
    result = makes_one_job(lambda: call("generate_image", **FAST))
    (preview,) = parts(result, ImageContent)
    assert is_image(base64.b64decode(preview.data))
    (kept["link"],) = parts(result, ResourceLink)


@check("progress")
def progress() -> None:
    seen: list[float] = []

    async def note(step: float, total: float | None, message: str | None) -> None:
        seen.append(step)

    with_client(lambda client: client.call_tool("generate_image", {**FAST}, progress_callback=note))
    assert seen == sorted(seen), seen
    assert seen


@check("edit")
def edit() -> None:
    result = call("generate_image", **FAST, init_image=str(kept["link"].uri), strength=0.5)
    assert parts(result, ResourceLink)


@check("understand an error")
def understand_an_error() -> None:
    result = call("generate_image", prompt=PROMPT, steps=600)
    assert result.is_error
    assert "steps" in result.content[0].text


@check("wrong key")
def wrong_key() -> None:
    assert raised_by(lambda: call("list_presets", "wrong"))

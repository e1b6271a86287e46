"""The official MCP client, and calls of `/mcp` by hand."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

Era = Literal["legacy", "auto"]
"""With the handshake of `initialize`, or with the newest version if the server has it."""

ERAS: tuple[Era, ...] = ("legacy", "auto")

ACCEPT = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def mcp_client(
    url: str, era: Era, *, key: str | None = None, waits: bool = True
) -> AsyncIterator[Client]:
    """The client of the `mcp` package for the service at `url`.

    Without `waits` it asks for an answer before its jobs have ended.
    """
    headers = {} if waits else {"Prefer": "wait=0"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=era) as client,
    ):
        yield client


def text_of(result: CallToolResult) -> str:
    """The text of an answer, which is always its first part."""
    first = result.content[0]
    assert isinstance(first, TextContent)
    return first.text


def message(method: str, *, request_id: Any = 1, **params: Any) -> dict[str, Any]:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def notification(method: str, **params: Any) -> dict[str, Any]:
    """A JSON-RPC notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def tool_call(name: str, **arguments: Any) -> dict[str, Any]:
    """A call of a tool."""
    return message("tools/call", name=name, arguments=arguments)


def post(client: httpx2.Client, body: Any, **headers: str) -> httpx2.Response:
    """Send a message, or other bytes, to `/mcp`."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    head = {"content-type": "application/json", "accept": ACCEPT["Accept"], **given}
    return client.post("/mcp", content=content, headers=head)


def replies(response: httpx2.Response) -> list[dict[str, Any]]:
    """The JSON-RPC messages of a response, which is JSON or an event stream."""
    if response.headers["content-type"].startswith("application/json"):
        return [response.json()]
    lines = response.text.split("\n")  # a text in it may have other line separators
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def error_of(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The error of a refused message; checks its status and its format."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert body["jsonrpc"] == "2.0"
    error: dict[str, Any] = body["error"]
    assert isinstance(error["code"], int)
    assert error["message"]
    return error

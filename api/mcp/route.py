"""Route `POST /mcp`: the Model Context Protocol over streamable HTTP, without sessions."""

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.types import Message, Receive, Scope, Send

from api.http.request_body import require_json
from api.mcp.calls import ToolCalls
from api.mcp.messages import read_message
from api.submit.handover import has_left
from model.card import Card
from model.request import GenerationRequest

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server


def routes(card: Card, request_model: type[GenerationRequest]) -> APIRouter:
    """The route; its tools have the presets, samplers and limits of the card."""
    router = APIRouter()
    built: list[Server[Any]] = []

    async def server() -> "Server[Any]":
        """The server; the `mcp` package is loaded by the first call."""
        if not built:
            built.append(await asyncio.to_thread(_build, card, request_model))
        return built[0]

    # It is not described by OpenAPI: a client asks the protocol itself for tools and schemas.
    @router.post("/mcp", include_in_schema=False, dependencies=[Depends(require_json)])
    async def call(request: Request, calls: ToolCalls) -> Response:
        body = await read_message(request)
        request.state.tool_calls = calls
        return _Exchange(await server(), body, calls)

    return router


def _build(card: Card, request_model: type[GenerationRequest]) -> "Server[Any]":
    from api.mcp.server import build_server

    return build_server(card, request_model)


class _Exchange(Response):
    """The answer of the package's transport to one message."""

    def __init__(self, server: "Server[Any]", body: bytes, calls: ToolCalls) -> None:
        super().__init__()
        self._server = server
        self._message = body
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the transport answer."""
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        # One for each message, so that nothing outlives it. Host, origin and size are checked.
        manager = StreamableHTTPSessionManager(self._server, stateless=True)
        async with manager.run():
            handed_over = self._handing_over(receive, send)
            await manager.handle_request(scope, self._replaying(receive), handed_over)

    def _handing_over(self, receive: Receive, send: Send) -> Send:
        """`send` that notes, before the end of the answer, that the client has all of it."""
        departure = self._calls.departure

        async def hand_over(message: Message) -> None:
            is_body = message["type"] == "http.response.body"
            is_end = is_body and not message.get("more_body", False)
            is_answered = is_end and departure.has_answer and not departure.has_left
            if is_answered and not await has_left(receive):
                await self._calls.submission.end_call(is_served=True)
            await send(message)

        return hand_over

    def _replaying(self, receive: Receive) -> Receive:
        """`receive` that begins with the body again, and notes when the client leaves."""
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if not is_read:
                is_read = True
                return {"type": "http.request", "body": self._message, "more_body": False}
            message = await receive()
            if message["type"] == "http.disconnect":
                self._calls.departure.has_left = True
            return message

        return replay

"""Hands the result of a job over to its client, and notices a client that has left before it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from fastapi import Response
from starlette.types import Receive, Scope, Send

OnEnd = Callable[[], Awaitable[None]]


class HandedOver(Response):
    """A JSON response; `on_served` is called when the client has taken it.

    It is not called if the connection is cut before. What the kernel has taken counts as taken.
    """

    def __init__(
        self,
        content: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        on_served: OnEnd,
    ) -> None:
        super().__init__(content, status, headers, media_type="application/json")
        self._on_served = on_served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; its last byte is sent once it is on record that the client has it.

        So whatever the client does next comes after that. The server has room for more again when
        the client has taken nearly all of the rest.
        """
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        body = bytes(self.body)
        for part in (body[:-1], b""):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if await has_left(receive):
            return
        await self._on_served()
        await send({"type": "http.response.body", "body": body[-1:], "more_body": False})


async def has_left(receive: Receive) -> bool:
    """Whether the client has disconnected; its request was read completely before."""
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    if waiting.done():
        return bool(waiting.result()["type"] == "http.disconnect")
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    return False

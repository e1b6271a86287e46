"""What is told, and what is an accident, when an answer breaks off."""

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from api.envelope import Envelope
from api.metrics import HttpMetrics
from worker.settings import Settings

SCOPE = {
    "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"",
    "headers": [],
}  # fmt: skip


async def carry_out(failure: Exception, *, is_stream: bool) -> list[Message]:
    """What is sent of an answer that begins and then fails."""
    sent: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [] if is_stream else [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise failure

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    settings = Settings(_env_file=None)
    middleware = Envelope(application, metrics=HttpMetrics(), settings=settings, error_shapes={})
    await middleware(dict(SCOPE), receive, send)
    return sent


async def test_a_stream_whose_listener_has_left_is_no_accident() -> None:
    left = ExceptionGroup("in a TaskGroup", [anyio.BrokenResourceError()])
    (start,) = await carry_out(left, is_stream=True)
    assert start["status"] == 200


@pytest.mark.parametrize(
    ("failure", "is_stream"),
    [
        (ExceptionGroup("mixed", [anyio.BrokenResourceError(), ValueError("ours")]), True),
        (ExceptionGroup("no stream", [anyio.BrokenResourceError()]), False),
        (ValueError("ours"), True),
    ],
)
async def test_everything_else_is(failure: Exception, *, is_stream: bool) -> None:
    with pytest.raises(type(failure)):
        await carry_out(failure, is_stream=is_stream)

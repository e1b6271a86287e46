"""A response that fails after its start."""

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.http.metrics import HttpMetrics
from api.middleware.request_context import RequestContextMiddleware
from worker.settings import Settings

SCOPE = {
    "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"",
    "headers": [],
}  # fmt: skip


async def fail_after_start(failure: Exception, *, is_stream: bool) -> None:
    """Send the start of a response, then raise `failure`."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [] if is_stream else [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise failure

    async def send(message: Message) -> None:
        assert message["status"] == 200

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    settings = Settings(_env_file=None)
    middleware = RequestContextMiddleware(
        application, metrics=HttpMetrics(), settings=settings, error_renderers={}
    )
    await middleware(dict(SCOPE), receive, send)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_failure_after_the_start_is_raised(*, is_stream: bool) -> None:
    with pytest.raises(ValueError, match="broken"):
        await fail_after_start(ValueError("broken"), is_stream=is_stream)

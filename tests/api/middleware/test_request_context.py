"""The outer middleware: failures after the start of a response, ids in log lines."""

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.http.metrics import HttpMetrics
from api.middleware.request_context import RequestContextMiddleware
from worker.settings import Settings
from worker.telemetry.logs import log_context_value

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


async def test_log_lines_carry_request_and_trace_id() -> None:
    seen: dict[str, str | None] = {}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update({name: log_context_value(name) for name in ("request", "trace_id")})

    middleware = RequestContextMiddleware(
        application,
        metrics=HttpMetrics(),
        settings=Settings(_env_file=None),
        error_renderers={},
    )
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = [
        (b"x-request-id", b"find-me"),
        (b"traceparent", f"00-{trace}-b7ad6b7169203331-01".encode()),
    ]
    await middleware(dict(SCOPE) | {"headers": headers}, _receive, _ignore)
    assert seen == {"request": "find-me", "trace_id": trace}


async def _receive() -> Message:
    return {"type": "http.disconnect"}


async def _ignore(message: Message) -> None:
    """Send nothing."""

"""What every exchange gets around its route, whichever it is.

A request id, a look at its head, a limit to its body, headers of security, a measured time, and
an answer when all else fails.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import INTERNAL, BodyTooLarge
from api.http.metrics import HttpMetrics
from api.http.problem import ErrorRenderer, ProblemResponse, shape_at
from api.middleware.browser_security import SECURITY_HEADERS, HostAndOriginCheck
from worker.settings import Settings
from worker.telemetry.logs import log_context
from worker.telemetry.tracing import annotate_request_span, trace_id_of

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger(__name__)


class _Answer:
    """One answer on its way out: headers of ours go in, and it is known how far it got."""

    def __init__(self, send: Send, request_id: str, on_begin: Callable[[int], None]) -> None:
        self._send = send
        self._request_id = request_id
        self._on_begin = on_begin
        self.is_begun = False
        self.is_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            self.is_begun = True
            self.is_stream = "content-length" not in headers
            self._on_begin(message["status"])
        await self._send(message)

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class RequestContextMiddleware:
    """ASGI middleware; the outermost of ours."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: HttpMetrics,
        settings: Settings,
        error_shapes: Mapping[str, ErrorRenderer],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = settings.max_body_bytes
        self._doorman = HostAndOriginCheck(settings)
        self._error_shapes = error_shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out one exchange; anything but HTTP passes untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        with log_context(request=request_id, trace_id_of=trace_id_of(headers.get("traceparent"))):
            annotate_request_span(request_id)
            await self._exchange(scope, receive, send)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, started = Headers(scope=scope), time.perf_counter()
        request_id = scope["state"]["request_id"]
        error_shape = scope["state"]["error_shape"] = shape_at(scope["path"], self._error_shapes)

        def observe(status: int) -> None:
            seconds = time.perf_counter() - started
            self._metrics.observe(seconds, scope["method"], route=_route(scope), status=status)
            if problem := scope["state"].get("problem"):
                self._metrics.count_problem(problem)

        answer = _Answer(send, request_id, observe)
        refusal = self._doorman.refusal(scope, headers, instance=request_id)
        if refusal is not None:
            scope["state"]["problem"] = refusal.kind.code
            response = error_shape(refusal)
            await response(scope, receive, answer.send)
            return
        limited = limited_body(receive, headers, self._max_body_bytes)
        try:
            await self._app(scope, limited, answer.send)
        except asyncio.CancelledError:
            if not answer.is_stream:
                raise
            # The server stops: a stream that ends in order is one its listener comes back to.
            await answer.end()
        except Exception:
            if answer.is_begun:
                raise
            log.exception("request=%s problem=%s", request_id, INTERNAL.code)
            scope["state"]["problem"] = INTERNAL.code
            response = error_shape(ProblemResponse(INTERNAL, INTERNAL.explanation, request_id))
            await response(scope, receive, answer.send)


def _request_id(offered: str | None) -> str:
    """The client's id where it is harmless in logs and headers, else a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return secrets.token_hex(16)


def _route(scope: Scope) -> str:
    """The path template: paths themselves would make a time series of every job."""
    return getattr(scope.get("route"), "path", "none")


def limited_body(receive: Receive, headers: Headers, limit: int) -> Receive:
    """`receive` that raises BodyTooLarge once the body is announced or found to exceed `limit`.

    Starlette has one too, but answers an announced excess with plain text that nothing can change.
    """
    announced = headers.get("content-length", "")
    is_too_large = (
        announced.isascii()
        and announced.isdigit()
        and (len(announced) > 18 or int(announced) > limit)
    )
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        if is_too_large:
            raise BodyTooLarge(limit)
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise BodyTooLarge(limit)
        return message

    return receive_limited

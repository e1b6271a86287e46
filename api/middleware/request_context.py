"""Outer middleware: request id, checks of the head, body limit, security headers, timing.

It also answers unexpected exceptions with a problem.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.metrics import HttpMetrics
from api.http.problem import ErrorRenderer, ProblemResponse, renderer_for
from api.http.problem_types import INTERNAL
from api.http.request_body import metered
from api.middleware.browser_security import SECURITY_HEADERS, HostAndOriginCheck
from api.middleware.content_coding import decoded_body
from api.middleware.limited_body import BodyBudget, LimitedBody
from api.middleware.start_gate import StartGate
from worker.settings import Settings
from worker.telemetry.logs import log_context
from worker.telemetry.tracing import annotate_request_span, trace_id_of

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

log = logging.getLogger(__name__)


class _ResponseSender:
    """Sends one response, adds our headers, and tracks how far it got.

    A client that left before the end of its body gets none: there is nothing to count or to log.
    """

    def __init__(
        self, send: Send, request_id: str, on_start: Callable[[int], None], body: LimitedBody
    ) -> None:
        self._send = send
        self._body = body
        self._request_id = request_id
        self._on_start = on_start
        self.is_started = False
        self.is_stream = False

    async def send(self, message: Message) -> None:
        if self._body.is_abandoned:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            self.is_started = True
            self.is_stream = "content-length" not in headers
            self._on_start(message["status"])
        await self._send(message)

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class RequestContextMiddleware:
    """ASGI middleware around all others but CORS."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: HttpMetrics,
        settings: Settings,
        error_renderers: Mapping[str, ErrorRenderer],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = settings.max_body_bytes
        # A smaller budget would refuse the largest bodies for ever.
        self._bodies = BodyBudget(max(settings.max_bodies_bytes, settings.max_body_bytes))
        self._head_check = HostAndOriginCheck(settings)
        self._error_renderers = error_renderers
        self._gate = StartGate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request; other scopes (lifespan) pass unchanged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        with log_context(request=request_id, trace_id=trace_id_of(headers.get("traceparent"))):
            annotate_request_span(request_id)
            if scope["method"] == "POST":
                await self._gate.wait_for_turn()
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, started = Headers(scope=scope), time.perf_counter()
        request_id = scope["state"]["request_id"]
        error_renderer = scope["state"]["error_renderer"] = renderer_for(
            scope["path"], self._error_renderers
        )

        def observe(status: int) -> None:
            seconds = time.perf_counter() - started
            self._metrics.observe(
                seconds, scope["method"], route=_route_template(scope), status=status
            )
            if problem := scope["state"].get("problem"):
                self._metrics.count_problem(problem)

        receive = decoded_body(receive, headers, self._max_body_bytes)
        body = LimitedBody(receive, headers, self._max_body_bytes, self._bodies)
        sender = _ResponseSender(send, request_id, observe, body)
        error = self._head_check.check(scope, headers, instance=request_id)
        if error is not None:
            scope["state"]["problem"] = error.kind.code
            response = error_renderer(error)
            await response(scope, receive, sender.send)
            return
        try:
            await self._app(scope, metered(body.receive, headers), sender.send)
        except asyncio.CancelledError:
            if not sender.is_stream:
                raise
            # The server stops. A client reconnects only to a stream that ended properly.
            await sender.end()
        except Exception:
            if body.is_abandoned:
                return
            if sender.is_started:
                raise
            log.exception("request=%s problem=%s", request_id, INTERNAL.code)
            scope["state"]["problem"] = INTERNAL.code
            response = error_renderer(ProblemResponse(INTERNAL, INTERNAL.explanation, request_id))
            await response(scope, receive, sender.send)
        finally:
            body.release()


def _request_id(given: str | None) -> str:
    """The client's id if it is safe in logs and headers, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)


def _route_template(scope: Scope) -> str:
    """The path template; a path would create a time series per job."""
    return getattr(scope.get("route"), "path", "none")

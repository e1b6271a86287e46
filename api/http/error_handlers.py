"""Turns exceptions into error responses, in the format of the API that was called."""

import logging
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from api.http import errors
from api.http.field_errors import field_errors, printable, total_of
from api.http.job_schemas import job_headers
from api.http.problem import ErrorRenderer, FieldError, Problem, ProblemResponse, ProblemType
from api.http.problem_types import (
    INTERNAL,
    MALFORMED_JSON,
    PROBLEM_BY_EXCEPTION,
    PROBLEM_BY_STATUS,
    VALIDATION_FAILED,
)
from model.errors import PolicyBlocked
from worker import errors as worker_errors

_RETRY_AFTER_SECONDS = 5

UNAVAILABLE: Final = "problem=%s reason=%s request=%s"
"""The log line of a request that fails because Redis or the store is away."""

log = logging.getLogger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` render all errors with the renderer in `request.state.error_renderer`."""
    for kind in PROBLEM_BY_EXCEPTION:
        app.exception_handler(kind)(handle_exception)
    app.exception_handler(HTTPException)(_handle_http_exception)
    app.exception_handler(RequestValidationError)(_handle_validation_error)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route, as FastAPI's `responses`."""
    return {status: {"model": Problem} for status in (*statuses, 500)}


async def handle_exception(request: Request, exc: Exception) -> Response:
    """The error response for an exception of `PROBLEM_BY_EXCEPTION`."""
    return _render(request, problem_response_for(exc, request.state.request_id))


def problem_response_for(exc: Exception, request_id: str) -> ProblemResponse:
    """What the client gets to know about an exception; server errors are logged in full."""
    kind = _problem_type(exc)
    tells = errors.JobUnfinished | errors.JobUnsuccessful | worker_errors.RedisUnfit
    if kind.status >= 500 and not isinstance(exc, tells):
        # Such messages contain hosts and paths, which clients must not see. While Redis or the
        # store is away, all requests fail alike: a traceback of each would bury the reason.
        is_away = isinstance(exc, worker_errors.QueueUnavailable | worker_errors.StoreError)
        if is_away:
            log.error(UNAVAILABLE, kind.code, exc, request_id)
        else:
            log.error("request=%s problem=%s reason=%s", request_id, kind.code, exc, exc_info=exc)
        detail = kind.explanation
    else:
        detail = printable(str(exc), limit=500)
    rule = exc.rule if isinstance(exc, PolicyBlocked) else None
    wrong = exc.errors if isinstance(exc, errors.KeyForbids) else ()
    return ProblemResponse(kind, detail, request_id, wrong, headers=_headers(exc), rule=rule)


def _problem_type(exc: Exception) -> ProblemType:
    if isinstance(exc, errors.JobUnsuccessful) and exc.job.error:
        error = exc.job.error
        return ProblemType(error.status, error.code, error.title, error.detail)
    bases = (base for base in type(exc).__mro__ if base in PROBLEM_BY_EXCEPTION)
    base = next(bases, None)
    return PROBLEM_BY_EXCEPTION[base] if base else INTERNAL


def _headers(exc: Exception) -> dict[str, str]:
    match exc:
        case errors.JobUnsuccessful(job=job):
            return job_headers(job)
        case errors.TooManyRequests():
            return {"Retry-After": "1"}
        case errors.JobUnfinished(job=job):
            return {"Retry-After": "1", **job_headers(job)}
        case errors.JobImagesUnavailable(job=job):
            return {"Retry-After": str(_RETRY_AFTER_SECONDS), **job_headers(job)}
        case (
            worker_errors.QueueFull(retry_after=seconds)
            | worker_errors.KeyLimitReached(retry_after=seconds)
        ):
            return {"Retry-After": str(seconds)}
        case worker_errors.QueueUnavailable() | worker_errors.StoreError():
            return {"Retry-After": str(_RETRY_AFTER_SECONDS)}
        case errors.Unauthorized(challenge=challenge):
            return {"WWW-Authenticate": challenge}
        case errors.UnsupportedCoding():
            return {"Accept-Encoding": "gzip, deflate"}
        case errors.RangeNotSatisfiable(size=size):
            return {"Content-Range": f"bytes */{size}"}
    return {}


def _render(request: Request, response: ProblemResponse) -> Response:
    """Render the error for the called API and note its code for the metrics."""
    request.state.problem = response.kind.code
    renderer: ErrorRenderer = request.state.error_renderer
    return renderer(response)


async def _handle_http_exception(request: Request, exc: HTTPException) -> Response:
    """Errors that FastAPI raises: unknown paths, wrong methods, unreadable bodies."""
    if isinstance(exc, errors.BodyRefused):
        return _render(request, _refused_body(exc, request.state.request_id))
    kind = PROBLEM_BY_STATUS.get(exc.status_code, INTERNAL)
    path = printable(request.scope["path"])
    details = {
        400: "the body cannot be read as JSON",
        404: f"the API has no path {path}",
        405: f"{path} does not support {request.method}",
    }
    detail = details.get(exc.status_code, str(exc.detail))
    request_id: str = request.state.request_id
    headers = _allow(request) if exc.status_code == 405 else exc.headers or {}
    return _render(request, ProblemResponse(kind, detail, request_id, headers=headers))


def _refused_body(exc: errors.BodyRefused, request_id: str) -> ProblemResponse:
    if exc.limit is None:
        return ProblemResponse(MALFORMED_JSON, exc.detail, request_id)
    whole = FieldError(pointer="", detail=exc.detail, limit=exc.limit)
    return ProblemResponse(VALIDATION_FAILED, exc.detail, request_id, [whole])


def _allow(request: Request) -> dict[str, str]:
    """All methods of the path (RFC 9110, 10.2.1); the router knows only those of one route."""
    path = request.scope["path"]
    allowed = {
        method
        for pattern, methods in _methods_of_paths(request.app)
        if pattern.match(path)
        for method in methods
    }
    # Static files are mounted, so no route matches.
    return {"Allow": ", ".join(sorted(allowed)) or "GET, HEAD"}


@lru_cache(maxsize=1)
def _methods_of_paths(app: FastAPI) -> Sequence[tuple[re.Pattern[str], Collection[str]]]:
    """The methods of each route; to ask the routes themselves takes a millisecond each time."""
    return [
        (compile_path(route.path)[0], route.methods)
        for route in iter_route_contexts(app.routes)
        if route.path is not None and route.methods
    ]


async def _handle_validation_error(request: Request, exc: RequestValidationError) -> Response:
    return _render(request, validation_problem(exc, request.state.request_id))


def validation_problem(exc: RequestValidationError, request_id: str) -> ProblemResponse:
    """One entry per wrong field; a body that is not JSON has no fields."""
    found = exc.errors()
    for error in found:
        if error["type"] == "json_invalid":
            reason = f"{error['ctx']['error']} at character {error['loc'][-1]}"
            return ProblemResponse(MALFORMED_JSON, reason, request_id)
    listed = field_errors(found)
    total = total_of(found)
    detail = "1 field is wrong" if total == 1 else f"{total} fields are wrong"
    if 1 < len(listed) < total:
        detail = f"{detail}; the first {len(listed)} are listed"
    return ProblemResponse(VALIDATION_FAILED, detail, request_id, listed)

"""Writes errors in the OpenAI format, and tells official clients whether to retry."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import Field

from api.http.field_errors import printable
from api.http.problem import FieldError, ProblemResponse
from api.http.problem_types import VALIDATION_FAILED
from api.http.response_model import ResponseModel

LONGEST_RETRY_SECONDS: Final = 120
"""The official clients give up if they are asked to wait longer."""

_TYPES: Final[dict[int, str]] = {403: "permission_error", 429: "rate_limit_error"}
_CODES: Final[dict[str, str]] = {"unauthorized": "invalid_api_key"}
_RETRYABLE: Final = ("job_unfinished", "store_unavailable")
"""Problems of a job that continues: a retry waits for it again."""

_SERVED: Final = (
    "/images/generations",
    "/images/edits",
    "/chat/completions",
    "/responses",
    "/models",
)
_WRONG_BASE: Final = re.compile(rf"\A\Z|\A/v\d+(?:/|\Z)|.(?:{'|'.join(_SERVED)})(?:/|\Z)")
"""What follows `/v1` in a path if the base URL was wrong: a known call after other parts."""

_FIELD_CODES: Final[dict[str, str]] = {
    "required": "missing_required_parameter",
    "unknown field": "unknown_parameter",
}


class WrongParameter(ResponseModel):
    """One invalid parameter."""

    param: str | None
    message: str
    limit: int | float | str | list[str] | None = None


class OpenAIErrorBody(ResponseModel):
    """What went wrong. `errors` has one entry for every invalid parameter."""

    message: str = Field(description="Explanation for humans.")
    type: str = Field(
        description="`invalid_request_error`, `permission_error`, `rate_limit_error` or "
        "`server_error`."
    )
    param: str | None = Field(description="The first invalid parameter; null if there is none.")
    code: str = Field(
        description="Stable error code: one of `/problems/{code}`, or a code of OpenAI's API."
    )
    job_id: str | None = Field(description="The job concerned; null if there is none.")
    rule: str | None = Field(description="The policy rule that was broken; null if there is none.")
    errors: list[WrongParameter] = Field(default=[], description="All invalid parameters.")


class OpenAIError(ResponseModel):
    """An error in the OpenAI format."""

    error: OpenAIErrorBody


def openai_error(problem: ProblemResponse) -> Response:
    """The problem as an OpenAI error. Invalid parameters have status 400."""
    status = 400 if problem.kind is VALIDATION_FAILED else problem.kind.status
    return Response(
        error_of(problem).model_dump_json(),
        status_code=status,
        media_type="application/json",
        headers={**problem.headers, **_retry_headers(status, problem)},
    )


def error_of(problem: ProblemResponse) -> OpenAIError:
    """The body of an error response, or the data of an error event."""
    status, param = problem.kind.status, None
    code = _CODES.get(problem.kind.code, problem.kind.code)
    message = problem.detail
    if code == "not_found":
        message = f"{message}; {_advice_about_path(message.rpartition(' ')[2])}"
    wrong = [_parameter(error) for error in problem.errors]
    if wrong:
        param = wrong[0].param
        code = _FIELD_CODES.get(problem.errors[0].detail.partition(";")[0], "invalid_value")
        message = printable("; ".join(_sentence(one) for one in wrong), limit=1000)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return OpenAIError(
        error=OpenAIErrorBody(
            message=message,
            type=kind,
            param=param,
            code=code,
            job_id=problem.headers.get("X-Job-Id"),
            rule=problem.rule,
            errors=wrong,
        )
    )


def _advice_about_path(path: str) -> str:
    """What to do about an unknown path: another base URL, or a call that there is."""
    if _WRONG_BASE.search(path.removeprefix("/v1")):
        return "the client's base URL must end with /v1"
    return f"below /v1 there are {', '.join(_SERVED)}"


def _parameter(error: FieldError) -> WrongParameter:
    path = error.pointer.removeprefix("/").replace("/", ".")
    return WrongParameter(param=path or None, message=error.detail, limit=error.limit)


def _sentence(wrong: WrongParameter) -> str:
    return f"{wrong.param}: {wrong.message}" if wrong.param else wrong.message


def _retry_headers(status: int, problem: ProblemResponse) -> dict[str, str]:
    """`X-Should-Retry`, if the official clients would decide wrongly from the status alone.

    A retry of a call finds the job of that call. If the job is unfinished, the retry waits for it.
    """
    wait = problem.headers.get("Retry-After", "0")
    if wait.isdigit() and int(wait) > LONGEST_RETRY_SECONDS:
        return {"X-Should-Retry": "false"}
    if "X-Job-Id" in problem.headers:
        return {"X-Should-Retry": "true" if problem.kind.code in _RETRYABLE else "false"}
    return {"X-Should-Retry": "false"} if status == 409 else {}


@contextmanager
def openai_names(names: Mapping[str, str]) -> Iterator[None]:
    """Rename the fields in validation errors."""
    try:
        yield
    except RequestValidationError as exc:
        raise RequestValidationError([_renamed(error, names) for error in exc.errors()]) from exc


def _renamed(error: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    match error["loc"]:
        case ("body", str(name), *rest):
            return {**error, "loc": ("body", names.get(name, name), *rest)}
    return dict(error)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for its OpenAPI description; 500 is always included."""
    return {status: {"model": OpenAIError} for status in (*statuses, 500)}

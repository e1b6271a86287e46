"""Errors as the OpenAI API writes them, and whether its clients shall try again by themselves."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from api.http.errors import VALIDATION
from api.http.field_errors import printable
from api.http.problem import ProblemResponse
from api.http.schemas import FieldError

LONGEST_RETRY_SECONDS: Final = 120
"""The official clients give up where they are asked to wait longer."""

_TYPES: Final[dict[int, str]] = {403: "permission_error", 429: "rate_limit_error"}
_CODES: Final[dict[str, str]] = {"unauthorized": "invalid_api_key"}
_GOING_ON: Final = ("job_unfinished", "store_unavailable")
_FIELD_CODES: Final[dict[str, str]] = {
    "required": "missing_required_parameter",
    "unknown field": "unknown_parameter",
}


class _ErrorModel(BaseModel):
    model_config = ConfigDict(frozen=True)


class WrongParameter(_ErrorModel):
    """One wrong parameter of several."""

    param: str | None
    message: str
    limit: int | float | str | list[str] | None = None


class OpenAIErrorBody(_ErrorModel):
    """What went wrong; `errors` has one entry for every wrong parameter."""

    message: str = Field(description="For people.")
    type: str = Field(
        description="`invalid_request_error`, `permission_error`, `rate_limit_error` or "
        "`server_error`."
    )
    param: str | None = Field(description="The first wrong parameter; null where none is.")
    code: str = Field(description="Stable; those of `/problems/{code}`, and a few of OpenAI's own.")
    job_id: str | None = Field(description="The job that this is about; else null.")
    rule: str | None = Field(description="The rule of the policy that refuses; else null.")
    errors: list[WrongParameter] = Field(default=[], description="All wrong parameters.")


class OpenAIError(_ErrorModel):
    """An error of this surface."""

    error: OpenAIErrorBody


def openai_error(refusal: ProblemResponse) -> Response:
    """The answer of this surface; wrong parameters are 400 here."""
    status = 400 if refusal.kind is VALIDATION else refusal.kind.status
    return Response(
        error_of(refusal).model_dump_json(),
        status_code=status,
        media_type="application/json",
        headers={**refusal.headers, **_retry_headers(status, refusal)},
    )


def error_of(refusal: ProblemResponse) -> OpenAIError:
    """The body of an answer, or the data of a stream's last event."""
    status, code, message, param = (
        refusal.kind.status,
        _CODES.get(refusal.kind.code, refusal.kind.code),
        refusal.detail,
        None,
    )
    wrong = [_parameter(error) for error in refusal.errors]
    if wrong:
        param = wrong[0].param
        code = _FIELD_CODES.get(refusal.errors[0].detail.partition(";")[0], "invalid_value")
        message = printable("; ".join(_sentence(one) for one in wrong), limit=1000)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return OpenAIError(
        error=OpenAIErrorBody(
            message=message,
            type=kind,
            param=param,
            code=code,
            job_id=refusal.headers.get("X-Job-Id"),
            rule=refusal.rule,
            errors=wrong,
        )
    )


def _parameter(error: FieldError) -> WrongParameter:
    path = error.pointer.removeprefix("/").replace("/", ".")
    return WrongParameter(param=path or None, message=error.detail, limit=error.limit)


def _sentence(wrong: WrongParameter) -> str:
    return f"{wrong.param}: {wrong.message}" if wrong.param else wrong.message


def _retry_headers(status: int, refusal: ProblemResponse) -> dict[str, str]:
    """Whether to try again, where the official clients would decide wrongly by the status.

    Their next try at a call finds its job: where that goes on, they wait for it once more.
    """
    wait = refusal.headers.get("Retry-After", "0")
    if wait.isdigit() and int(wait) > LONGEST_RETRY_SECONDS:
        return {"X-Should-Retry": "false"}
    if "X-Job-Id" in refusal.headers:
        return {"X-Should-Retry": "true" if refusal.kind.code in _GOING_ON else "false"}
    return {"X-Should-Retry": "false"} if status == 409 else {}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors a route answers with, for its OpenAPI description."""
    return {status: {"model": OpenAIError} for status in _all(statuses)}


def _all(statuses: Sequence[int]) -> Sequence[int]:
    return (*statuses, 500)

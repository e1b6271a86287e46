"""Problems: how the API describes an error (RFC 9457) and how it renders one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastapi.responses import Response
from pydantic import Field

from api.http.response_model import AbsentIfNone, ResponseModel

PROBLEM_MEDIA_TYPE = "application/problem+json"


class FieldError(ResponseModel):
    """One wrong field: a JSON pointer into the body, the reason, and the limit it exceeds."""

    pointer: str
    detail: str
    limit: int | float | str | list[str] | None = None


class Problem(ResponseModel):
    """An RFC 9457 problem: `instance` is the request id; GET `type` explains the problem type."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError] = Field(default=[])
    rule: AbsentIfNone[str] = Field(
        default=None,
        description="The name of the rule that blocked the request. Missing in all problems but "
        "`policy_blocked`.",
        examples=["max_rating"],
    )


class ProblemExplanation(ResponseModel):
    """What a problem type means and how to fix it."""

    type: str
    code: str
    title: str
    status: int
    explanation: str


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type of problem; `code` is also the last part of its URL."""

    status: int
    code: str
    title: str
    explanation: str

    @property
    def path(self) -> str:
        return f"/problems/{self.code}"


@dataclass(frozen=True, slots=True)
class ProblemResponse:
    """An error before it is rendered: `instance` is the request id, `rule` a policy rule."""

    kind: ProblemType
    detail: str
    instance: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    rule: str | None = None


ErrorRenderer = Callable[[ProblemResponse], Response]
"""Renders an error in the format of one API: problem+json, OpenAI or A1111."""


def render_problem(response: ProblemResponse) -> Response:
    """The error as `application/problem+json`, the format of the native API."""
    problem = Problem(
        type=response.kind.path,
        title=response.kind.title,
        status=response.kind.status,
        detail=response.detail,
        instance=response.instance,
        code=response.kind.code,
        errors=list(response.errors),
        rule=response.rule,
    )
    return Response(
        problem.model_dump_json(),
        status_code=response.kind.status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers=response.headers,
    )


def renderer_for(path: str, renderers: Mapping[str, ErrorRenderer]) -> ErrorRenderer:
    """The renderer of the path prefix in `renderers` that `path` is under, else problem+json."""
    for prefix, renderer in renderers.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return renderer
    return render_problem

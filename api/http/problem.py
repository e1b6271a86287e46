"""What is said of a failure, and the shape in which a surface says it.

The service's own surface answers with RFC 9457 problems; the dialects bring shapes of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastapi.responses import Response

from api.http.schemas import FieldError, Problem

PROBLEM_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem; `code` is also the last part of its `type`."""

    status: int
    code: str
    title: str
    explanation: str

    @property
    def path(self) -> str:
        return f"/problems/{self.code}"


@dataclass(frozen=True, slots=True)
class ProblemResponse:
    """Why an exchange fails; `instance` is the request's id, `rule` that of a policy."""

    kind: ProblemType
    detail: str
    instance: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    rule: str | None = None


ErrorRenderer = Callable[[ProblemResponse], Response]
"""How a surface writes a refusal."""


def as_problem(refusal: ProblemResponse) -> Response:
    """The answer of the service's own surface."""
    problem = Problem(
        type=refusal.kind.path,
        title=refusal.kind.title,
        status=refusal.kind.status,
        detail=refusal.detail,
        instance=refusal.instance,
        code=refusal.kind.code,
        errors=list(refusal.errors),
        rule=refusal.rule,
    )
    return Response(
        problem.model_dump_json(exclude={"rule"} if refusal.rule is None else None),
        status_code=refusal.kind.status,
        media_type=PROBLEM_MEDIA_TYPE,
        headers=refusal.headers,
    )


def shape_at(path: str, shapes: Mapping[str, ErrorRenderer]) -> ErrorRenderer:
    """The shape of the surface that `path` is under; `shapes` has them by the surfaces' roots."""
    for root, shape in shapes.items():
        if path == root or path.startswith(f"{root}/"):
            return shape
    return as_problem

"""`GET /problems/{code}`: what the `type` of a problem points to."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.http.errors import explain, responses
from api.http.schemas import ProblemExplanation

router = APIRouter(tags=["service"])


@router.get(
    "/problems/{code}",
    operation_id="explainProblem",
    summary="What a problem type means",
    responses=responses(404, 422),
)
async def explain_problem(
    code: Annotated[str, Path(examples=["validation_failed"])],
) -> ProblemExplanation:
    """Meaning of a problem type, and what to do about it."""
    return explain(code)

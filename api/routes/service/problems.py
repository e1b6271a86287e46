"""`GET /problems/{code}`: explains a problem type."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.http.error_handlers import problem_responses
from api.http.problem import ProblemExplanation
from api.http.problem_types import explanation_of

router = APIRouter(tags=["service"])


@router.get(
    "/problems/{code}",
    operation_id="explainProblem",
    summary="Explain a problem type",
    responses=problem_responses(404, 422),
)
async def explain_problem(
    code: Annotated[str, Path(examples=["validation_failed"])],
) -> ProblemExplanation:
    """Explain what a problem type means and what to do about it."""
    return explanation_of(code)

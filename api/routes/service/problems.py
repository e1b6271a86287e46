"""`GET /problems/{code}`: explains a problem type."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.http.errors import explain, responses
from api.http.schemas import ProblemExplanation

router = APIRouter(tags=["service"])


@router.get(
    "/problems/{code}",
    operation_id="explainProblem",
    summary="Explain a problem type",
    responses=responses(404, 422),
)
async def explain_problem(
    code: Annotated[str, Path(examples=["validation_failed"])],
) -> ProblemExplanation:
    """Explain what a problem type means and what to do about it."""
    return explain(code)

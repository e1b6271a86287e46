"""Writes errors in the A1111 format."""

from typing import Any

from fastapi.responses import JSONResponse, Response

from api.a1111.schemas import A1111Error
from api.http.problem import ProblemResponse


def a1111_error(problem: ProblemResponse) -> Response:
    """The problem as an A1111 error; the HTTP status stays the same."""
    detail = [
        {
            "type": "value_error",
            "loc": ["body", *error.pointer.strip("/").split("/")] if error.pointer else ["body"],
            "msg": error.detail,
        }
        for error in problem.errors
    ]
    text = "; ".join(f"{error.pointer.strip('/')}: {error.detail}" for error in problem.errors)
    body = A1111Error(
        error=problem.kind.code,
        detail=detail or problem.detail,
        body="",
        errors=text or problem.detail,
        job_id=problem.headers.get("X-Job-Id"),
    )
    return JSONResponse(body.model_dump(), problem.kind.status, headers=dict(problem.headers))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for its OpenAPI description; 500 is always included."""
    return {status: {"model": A1111Error} for status in (*statuses, 500)}

"""All errors below `/v1` have the OpenAI format."""

import json

import httpx2

from api.http.problem import FieldError, ProblemResponse, render_problem, renderer_for
from api.http.problem_types import PROBLEM_BY_EXCEPTION, VALIDATION_FAILED
from api.openai.errors import error_of, openai_error
from model.errors import PolicyBlocked
from tests.support.api_server import ApiServer
from tests.support.openai_clients import read_openai_error
from worker.errors import JobAlreadyFinished, QueueFull


def problem(kind: type[Exception], **headers: str) -> ProblemResponse:
    return ProblemResponse(PROBLEM_BY_EXCEPTION[kind], "why", "request-1", headers=headers)


def test_unknown_paths(client: httpx2.Client) -> None:
    for path in ("/v1", "/v1/", "/v1/embeddings", "/v1/images/variations"):
        error = read_openai_error(client.post(path, json={}), 404)
        assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")
        assert path.rstrip("/") in error["message"]


def test_unsupported_method(client: httpx2.Client) -> None:
    response = client.delete("/v1/models")
    assert read_openai_error(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "GET, HEAD"


def test_other_paths_have_problems(client: httpx2.Client) -> None:
    for path in ("/v1x", "/v2/models"):
        response = client.get(path)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "not_found"


def test_unexpected_exception(server: ApiServer, client: httpx2.Client) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("internal secret")

    server.app.add_api_route("/v1/fail", fail)
    response = client.get("/v1/fail", headers={"x-request-id": "find-me"})
    assert read_openai_error(response, 500)["type"] == "server_error"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "find-me"


def test_invalid_parameters_are_400_and_listed() -> None:
    errors = [
        FieldError(pointer="/n", detail="Input should be at most 8; got 99", limit=8),
        FieldError(pointer="/loras/0/name", detail="unknown", limit=["watercolor"]),
    ]
    response = openai_error(
        ProblemResponse(VALIDATION_FAILED, "2 fields are wrong", "request-1", errors)
    )
    assert response.status_code == 400
    error = error_of(ProblemResponse(VALIDATION_FAILED, "", "request-1", errors)).error
    assert error.param == "n"
    assert error.code == "invalid_value"
    assert error.message == "n: Input should be at most 8; got 99; loras.0.name: unknown"
    assert [wrong.param for wrong in error.errors] == ["n", "loras.0.name"]
    assert error.errors[1].limit == ["watercolor"]


def test_codes_of_the_openai_api() -> None:
    for detail, code in (
        ("required", "missing_required_parameter"),
        ("unknown field; got 1", "unknown_parameter"),
    ):
        errors = [FieldError(pointer="/x", detail=detail)]
        assert (
            error_of(ProblemResponse(VALIDATION_FAILED, "", "request-1", errors)).error.code == code
        )


def test_useless_retries_are_prevented() -> None:
    again = openai_error(problem(QueueFull, **{"Retry-After": "120"}))
    assert (again.status_code, again.headers["retry-after"]) == (429, "120")
    assert "x-should-retry" not in again.headers, "clients retry 429 anyway"
    assert error_of(problem(QueueFull)).error.type == "rate_limit_error"
    late = openai_error(problem(QueueFull, **{"Retry-After": "121"}))
    assert late.headers["x-should-retry"] == "false"
    conflict = openai_error(problem(JobAlreadyFinished))
    assert conflict.headers["x-should-retry"] == "false"


def test_policy_refusal_names_the_rule() -> None:
    blocked = ProblemResponse(
        PROBLEM_BY_EXCEPTION[PolicyBlocked], "why", "request-1", rule="no-frogs"
    )
    assert openai_error(blocked).status_code == 403
    assert error_of(blocked).error.code == "policy_blocked"
    assert error_of(blocked).error.rule == "no-frogs"
    assert json.loads(bytes(render_problem(blocked).body))["rule"] == "no-frogs"


def test_error_format_applies_to_whole_path_segments() -> None:
    shapes = {"/v1": openai_error}
    assert renderer_for("/v1", shapes) is openai_error
    assert renderer_for("/v1/models", shapes) is openai_error
    assert renderer_for("/v11", shapes) is render_problem
    assert renderer_for("/", shapes) is render_problem

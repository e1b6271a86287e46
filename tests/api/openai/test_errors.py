"""Errors of the OpenAI surface have OpenAI's shape, whoever finds them."""

import json

import httpx2
import pytest

from api.http.errors import TABLE, VALIDATION
from api.http.problem import ProblemResponse, as_problem, shape_at
from api.http.schemas import FieldError
from api.openai.errors import error_of, openai_error
from model.errors import PolicyBlocked
from tests.support.api_server import ApiServer
from tests.support.openai_clients import is_error
from worker.errors import JobAlreadyFinished, QueueFull


def refusal(kind: type[Exception], **headers: str) -> ProblemResponse:
    return ProblemResponse(TABLE[kind], "why", "request-1", headers=headers)


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions", "/v1/images/variations"])
def test_unknown_paths(client: httpx2.Client, path: str) -> None:
    error = is_error(client.post(path, json={}), 404)
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")
    assert path in error["message"]


def test_a_method_that_is_not_possible(client: httpx2.Client) -> None:
    answer = client.delete("/v1/models")
    assert is_error(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "GET"


def test_other_paths_keep_their_problems(client: httpx2.Client) -> None:
    for path in ("/v1x", "/v2/models"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "not_found"


def test_what_nobody_foresaw(server: ApiServer, client: httpx2.Client) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("secret of the house")

    server.app.add_api_route("/v1/fail", fail)
    answer = client.get("/v1/fail", headers={"x-request-id": "find-me"})
    assert is_error(answer, 500)["type"] == "server_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "find-me"


def test_wrong_parameters_are_400_and_all_named() -> None:
    errors = [
        FieldError(pointer="/n", detail="Input should be at most 8; got 99", limit=8),
        FieldError(pointer="/loras/0/name", detail="unknown", limit=["watercolor"]),
    ]
    answer = openai_error(ProblemResponse(VALIDATION, "2 fields are wrong", "request-1", errors))
    assert answer.status_code == 400
    error = error_of(ProblemResponse(VALIDATION, "", "request-1", errors)).error
    assert error.param == "n"
    assert error.code == "invalid_value"
    assert error.message == "n: Input should be at most 8; got 99; loras.0.name: unknown"
    assert [wrong.param for wrong in error.errors] == ["n", "loras.0.name"]
    assert error.errors[1].limit == ["watercolor"]


@pytest.mark.parametrize(
    ("detail", "code"),
    [("required", "missing_required_parameter"), ("unknown field; got 1", "unknown_parameter")],
)
def test_codes_of_openai_where_it_has_one(detail: str, code: str) -> None:
    errors = [FieldError(pointer="/x", detail=detail)]
    assert error_of(ProblemResponse(VALIDATION, "", "request-1", errors)).error.code == code


def test_clients_are_told_what_is_in_vain() -> None:
    again = openai_error(refusal(QueueFull, **{"Retry-After": "120"}))
    assert (again.status_code, again.headers["retry-after"]) == (429, "120")
    assert "x-should-retry" not in again.headers, "429 is tried again by itself"
    assert error_of(refusal(QueueFull)).error.type == "rate_limit_error"
    tomorrow = openai_error(refusal(QueueFull, **{"Retry-After": "121"}))
    assert tomorrow.headers["x-should-retry"] == "false"
    conflict = openai_error(refusal(JobAlreadyFinished))
    assert conflict.headers["x-should-retry"] == "false"


def test_a_refusal_of_the_policy_names_its_rule() -> None:
    blocked = ProblemResponse(TABLE[PolicyBlocked], "why", "request-1", rule="no-frogs")
    assert openai_error(blocked).status_code == 403
    assert error_of(blocked).error.code == "policy_blocked"
    assert error_of(blocked).error.rule == "no-frogs"
    assert json.loads(bytes(as_problem(blocked).body))["rule"] == "no-frogs"


def test_a_shape_goes_with_whole_segments() -> None:
    shapes = {"/v1": openai_error}
    assert shape_at("/v1", shapes) is openai_error
    assert shape_at("/v1/models", shapes) is openai_error
    assert shape_at("/v11", shapes) is as_problem
    assert shape_at("/", shapes) is as_problem

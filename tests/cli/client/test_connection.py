"""Error messages from problem responses and from other servers."""

from typing import Any

import httpx2
import pytest

from cli.client.connection import raise_for_problem
from cli.client.errors import ClientError


def test_another_server_is_recognised() -> None:
    response = httpx2.Response(
        404, text="<html>", request=httpx2.Request("POST", "http://other/generate")
    )
    with pytest.raises(ClientError, match="is it this service"):
        raise_for_problem(response)


def test_a_problem_names_each_field() -> None:
    problem: dict[str, Any] = {
        "title": "Invalid request",
        "detail": "2 fields are wrong",
        "errors": [
            {"pointer": "/steps", "detail": "too many"},
            {"pointer": "", "detail": "an object is needed"},
        ],
    }
    with pytest.raises(ClientError) as caught:
        raise_for_problem(httpx2.Response(422, json=problem))
    assert str(caught.value).splitlines() == [
        "Invalid request: 2 fields are wrong",
        "  steps: too many",
        "  request: an object is needed",
    ]

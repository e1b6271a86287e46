"""The table of problem types is complete; unexpected errors reveal no details."""

import inspect
import logging
import re
from pathlib import Path

import httpx2
import pytest

import api
from api.http.problem_types import PROBLEM_BY_EXCEPTION, PROBLEM_TYPES
from api.main import create_app
from model.errors import ModelError, PolicyBlocked
from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from tests.support.paths import ROOT
from worker import errors as worker_errors
from worker import job_errors
from worker.settings import Settings


def test_every_worker_error_has_a_problem_type() -> None:
    error_types = {
        kind
        for _, kind in inspect.getmembers(worker_errors, inspect.isclass)
        if issubclass(kind, worker_errors.WorkerError)
    }
    base_classes = {worker_errors.WorkerError, worker_errors.KeyLimitReached}
    known = set(PROBLEM_BY_EXCEPTION)
    assert [kind for kind in error_types - base_classes if known.isdisjoint(kind.__mro__)] == []


def test_every_job_error_is_explained() -> None:
    assert set(job_errors._PROBLEMS) <= set(PROBLEM_TYPES)


def test_codes_are_unique_and_fit_into_a_path() -> None:
    kinds = {*PROBLEM_BY_EXCEPTION.values(), *PROBLEM_TYPES.values()}
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(re.fullmatch("[a-z_]+", kind.code) for kind in kinds)


def test_every_problem_type_has_a_page(client: httpx2.Client) -> None:
    for code in PROBLEM_TYPES:
        answer = client.get(f"/problems/{code}")
        assert answer.status_code == 200, code
        assert answer.json()["code"] == code
        assert answer.json()["explanation"], code


def test_only_two_modules_use_http_exceptions() -> None:
    (folder,) = api.__path__
    using = {
        file.name for file in Path(folder).rglob("*.py") if "HTTPException" in file.read_text()
    }
    assert using == {"error_handlers.py", "errors.py"}


def test_unexpected_exceptions(
    server: ApiServer, client: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in (ZeroDivisionError, ModelError, worker_errors.WorkerError):
        _add_failing_route(server, f"/fail/{kind.__name__}", kind("internal secret"))
        with caplog.at_level(logging.ERROR):
            headers = {"x-request-id": f"find-{kind.__name__}"}
            answer = client.get(f"/fail/{kind.__name__}", headers=headers)
        assert answer.status_code == 500
        assert read_problem(answer)["code"] == "internal"
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] == f"find-{kind.__name__}"
        assert answer.headers["x-content-type-options"] == "nosniff"
        (record,) = [entry for entry in caplog.records if kind.__name__ in entry.getMessage()]
        assert record.exc_info is not None
        assert "internal secret" in str(record.exc_info[1])


def _add_failing_route(server: ApiServer, path: str, failure: Exception) -> None:
    async def fail() -> None:
        raise failure

    server.app.add_api_route(path, fail)


def test_docs_list_every_code_and_every_path() -> None:
    folder = ROOT / "docs"
    manual = "".join((folder / page).read_text() for page in ("api.md", "a1111.md", "problems.md"))
    document = create_app(Settings(_env_file=None)).openapi()
    missing = [code for code in PROBLEM_TYPES if f"`{code}`" not in manual]
    missing += [path for path in document["paths"] if f"{path}`" not in manual]
    assert not missing


def test_only_policy_blocked_has_a_rule(server: ApiServer, client: httpx2.Client) -> None:
    _add_failing_route(server, "/blocked", PolicyBlocked("a_rule", "for a reason"))
    answer, other = client.get("/blocked"), client.get("/no")
    assert answer.status_code == 403
    problem = read_problem(answer)
    assert (problem["code"], problem["rule"]) == ("policy_blocked", "a_rule")
    assert problem["detail"] == "refused by the rule a_rule: for a reason"
    assert "rule" not in read_problem(other)

"""The table of problems is whole; what nobody foresaw is told without details."""

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
from worker import job_errors as failures
from worker.settings import Settings


def test_every_refusal_of_the_worker_package_has_a_row() -> None:
    refusals = {
        kind
        for _, kind in inspect.getmembers(worker_errors, inspect.isclass)
        if issubclass(kind, worker_errors.WorkerError)
    }
    only_bases = {worker_errors.WorkerError, worker_errors.KeyLimitReached}
    assert refusals - only_bases <= set(PROBLEM_BY_EXCEPTION)


def test_every_reason_of_failure_is_explained() -> None:
    assert set(failures._PROBLEMS) <= set(PROBLEM_TYPES)


def test_codes_are_unique_and_fit_into_a_path() -> None:
    kinds = {*PROBLEM_BY_EXCEPTION.values(), *PROBLEM_TYPES.values()}
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(re.fullmatch("[a-z_]+", kind.code) for kind in kinds)


@pytest.mark.parametrize("code", PROBLEM_TYPES)
def test_every_type_answers_with_an_explanation(client: httpx2.Client, code: str) -> None:
    answer = client.get(f"/problems/{code}")
    assert answer.status_code == 200
    assert answer.json()["code"] == code
    assert answer.json()["explanation"]


def test_only_one_module_knows_http_exceptions() -> None:
    (folder,) = api.__path__
    knowing = {
        file.name for file in Path(folder).rglob("*.py") if "HTTPException" in file.read_text()
    }
    assert knowing == {"error_handlers.py", "errors.py"}


@pytest.mark.parametrize("kind", [ZeroDivisionError, ModelError, worker_errors.WorkerError])
def test_what_nobody_foresaw(
    settings: Settings, redis_url: str, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    running = ApiServer(settings)

    async def fail() -> None:
        raise kind("secret of the house")

    running.app.add_api_route("/fail", fail)
    running.start()
    try:
        with caplog.at_level(logging.ERROR):
            answer = httpx2.get(f"{running.url}/fail", headers={"x-request-id": "find-me"})
    finally:
        running.stop()
    assert answer.status_code == 500
    assert read_problem(answer)["code"] == "internal"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "find-me"
    assert answer.headers["x-content-type-options"] == "nosniff"
    (record,) = [record for record in caplog.records if "find-me" in record.getMessage()]
    assert record.exc_info is not None
    assert "secret of the house" in str(record.exc_info[1])


def test_the_manual_names_every_code_and_every_path() -> None:
    folder = ROOT / "docs"
    manual = "".join((folder / page).read_text() for page in ("api.md", "a1111.md"))
    document = create_app(Settings(_env_file=None)).openapi()
    missing = [code for code in PROBLEM_TYPES if f"`{code}`" not in manual]
    missing += [path for path in document["paths"] if f"{path}`" not in manual]
    assert not missing


def test_a_refusal_of_the_policy_names_its_rule_and_other_problems_have_none(
    settings: Settings, redis_url: str
) -> None:
    running = ApiServer(settings)

    async def refuse() -> None:
        raise PolicyBlocked("a_rule", "for a reason")

    running.app.add_api_route("/refused", refuse)
    running.start()
    try:
        answer, other = httpx2.get(f"{running.url}/refused"), httpx2.get(f"{running.url}/no")
    finally:
        running.stop()
    assert answer.status_code == 403
    problem = read_problem(answer)
    assert (problem["code"], problem["rule"]) == ("policy_blocked", "a_rule")
    assert problem["detail"] == "refused by the rule a_rule: for a reason"
    assert "rule" not in read_problem(other)

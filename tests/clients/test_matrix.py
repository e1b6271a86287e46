"""docs/clients.md says what `make clients` found, for the packages that are pinned."""

import json
import re

from tests.clients.programs import (
    FOLDER,
    NODE_PACKAGES,
    PROGRAMS,
    REQUIREMENTS,
    node_pins,
    python_pins,
)
from tests.clients.results import PAGE, complete, read_results, table, with_table
from tests.support.paths import ROOT

LOCK = FOLDER / "node/package-lock.json"


def test_the_page_has_the_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page, read_results()), "run `make clients`"


def test_the_results_are_those_of_the_programs() -> None:
    """A new version, program or check needs a new run."""
    tried = {
        client: (result["version"], [*result["checks"]])
        for client, result in read_results().items()
    }
    expected = {}
    for program in PROGRAMS:
        entry = complete(program, {}, refused="")
        expected[program.client] = (entry["version"], [*entry["checks"]])
    assert tried == expected, "run `make clients`"


def test_every_program_generates_and_provokes_an_error() -> None:
    for program in PROGRAMS:
        assert {"understand an error", "wrong key"} <= set(program.checks), program.file


def test_every_pinned_package_is_tried() -> None:
    asked = (FOLDER / "python/requirements.in").read_text(encoding="utf-8").split()
    tried = {package for program in PROGRAMS for package in program.packages}
    assert {*asked, *node_pins()} == tried


def test_versions_are_exact_and_no_registry_is_named() -> None:
    assert set(python_pins()) > {"openai", "litellm"}
    for version in [*python_pins().values(), *node_pins().values()]:
        assert re.fullmatch(r"\d[\w.]*", version)
    assert "://" not in REQUIREMENTS.read_text(encoding="utf-8")
    assert "://" not in NODE_PACKAGES.read_text(encoding="utf-8")
    packages = json.loads(LOCK.read_text(encoding="utf-8"))["packages"]
    assert packages[""]["devDependencies"] | packages[""]["dependencies"] == node_pins()
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_packages_that_other_tests_use_have_the_same_version() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name in (FOLDER / "python/requirements.in").read_text(encoding="utf-8").split():
        if found := re.search(rf"^{re.escape(name)}==(\S+)", constraints, re.MULTILINE):
            assert python_pins()[name] == found[1], name


def test_failed_checks_are_shown_with_their_reason() -> None:
    program = PROGRAMS[0]
    reached = dict.fromkeys(program.checks)
    assert "| all work |" in table({program.client: complete(program, reached, refused="")})
    broken = complete(program, {**reached, "edit": "HTTPError: 500"}, refused="192.0.2.1\n" * 2)
    row = table({program.client: broken}).splitlines()[-1]
    assert row.endswith(
        "| **edit**: HTTPError: 500; "
        "**no connection to other machines**: tried to reach 192.0.2.1 |"
    )


def test_a_check_that_was_not_reached_has_failed() -> None:
    checks = complete(PROGRAMS[0], {"generate": None}, refused="")["checks"]
    assert checks["generate"] is None
    assert checks["edit"] == "was not reached"

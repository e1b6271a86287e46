"""The documentation says what the code does: tables, targets, options, links."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from api.main import create_app
from api.submit.dry_run import Plan
from cli.main import app
from model.card import TagGroup
from model.request import WarningCode
from model.sampling.samplers import SAMPLERS
from model.sampling.schedules import SCHEDULES
from tests.support.paths import ROOT
from tests.tools.tables import ENV_EXAMPLE, SETTINGS_PAGE, env_example, with_settings_table
from worker.settings import Settings

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
_CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _code(page: Path) -> list[str]:
    """Lines of all code, with continued lines joined."""
    found = [block or inline for block, inline in _CODE.findall(_text(page))]
    return "\n".join(found).replace("\\\n", " ").splitlines()


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    assert _text(SETTINGS_PAGE) == with_settings_table(_text(SETTINGS_PAGE)), "run `make docs`"
    assert _text(ENV_EXAMPLE) == env_example(), "run `make docs`"


def test_the_readme_and_the_page_of_a1111_list_exactly_the_endpoints_there_are() -> None:
    document: dict[str, Any] = create_app(Settings()).openapi()
    offered = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    text = _text(ROOT / "README.md") + _text(ROOT / "docs/a1111.md")
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    listed = re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", "\n".join(rows))
    assert sorted(listed) == sorted(offered | {"GET /docs", "GET /openapi.json"})


@each_page
def test_links_to_files_resolve(page: Path) -> None:
    prose = _CODE.sub("", _text(page))
    targets = [link.partition("#")[0] for link in _LINK.findall(prose) if "://" not in link]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert missing == []


@each_page
def test_make_targets_exist(page: Path) -> None:
    known = set(_TARGET.findall(_text(ROOT / "Makefile")))
    named = {name for line in _code(page) for name in re.findall(r"\bmake ([a-z][a-z-]*)", line)}
    assert named <= known


@each_page
def test_command_line_options_exist(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for group in ("checkpoint", "keys"):
        commands |= {f"{group} {k}": v for k, v in commands[group].commands.items()}
    for line in _code(page):
        call = re.search(
            r"\bkirazuri (up|generate|replay|verify|certificate|version"
            r"|(?:checkpoint|keys) [a-z]+)\b(.*)",
            line,
        )
        if call:
            known = {name for option in commands[call[1]].params for name in option.opts}
            known |= {n for option in commands[call[1]].params for n in option.secondary_opts}
            assert set(re.findall(r"--[a-z][a-z-]*", call[2])) <= known, line


def test_settings_named_in_the_pages_exist() -> None:
    known = {f"KIRAZURI_{name.upper()}" for name in Settings.model_fields}
    of_compose = {"KIRAZURI_PUBLISH", "KIRAZURI_CHECKPOINT", "KIRAZURI_LORAS"} | {
        "KIRAZURI_METRICS_KEY_FILE",
        "KIRAZURI_PROMETHEUS_PUBLISH",
        "KIRAZURI_GRAFANA_PUBLISH",
    }
    for page in PAGES:
        assert set(re.findall(r"\bKIRAZURI_[A-Z_]*[A-Z]\b", _text(page))) <= known | of_compose


def _table(page: str, heading: str) -> str:
    """The first table under a heading of a page of docs/."""
    section = _text(ROOT / "docs" / page).partition(f"## {heading}")[2]
    return re.split(r"\n\n(?!\|)", section[section.index("\n| ") :])[0]


def test_every_warning_is_explained() -> None:
    described = re.findall(r"^\| `(\w+)` \|", _table("prompts.md", "Warnings"), re.MULTILINE)
    assert sorted(described) == sorted(get_args(WarningCode))


def test_all_of_a_plan_is_explained() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", _table("prompts.md", "Trying"), re.MULTILINE)
    described = re.findall(r"`(\w+)`", "".join(rows))
    assert sorted(described) == sorted(Plan.model_fields)


def test_tag_groups_are_all_named() -> None:
    for page in ("prompts.md", "api.md"):
        text = _text(ROOT / "docs" / page)
        assert ", ".join(f"`{group}`" for group in get_args(TagGroup)) in text


def test_samplers_and_schedules_are_all_described() -> None:
    text = _text(ROOT / "docs/samplers.md")
    tables = re.split(r"\n\n(?!\|)", text)
    described = [
        re.findall(r"^\| `(\w+)`", table, re.MULTILINE) for table in tables if "\n|---" in table
    ]
    assert list(SAMPLERS) in described
    assert list(SCHEDULES) in described

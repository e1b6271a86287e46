"""The documentation says what the code does: tables, targets, options, links."""

import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml

from api.main import create_app
from api.submit.dry_run import Plan
from cli.main import app
from model.card import TagGroup
from model.request import WarningCode
from model.sampling.samplers import SAMPLERS
from model.sampling.schedules import SCHEDULES
from tests.support.paths import ROOT
from tests.support.snippets import ALL, PAGES, PROGRAMS, snippets
from tests.tools.tables import ENV_EXAMPLE, TABLES, env_example, with_tables
from worker.job_events import EVENTS, EventName
from worker.queue.layout import redis_keys, rq_layout
from worker.settings import Settings

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
_CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
_PATH = re.compile(r"(?<![\w/.-])(?:api|cli|docker|docs|model|tests|training|worker)/[\w./-]+\.\w+")


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _code(page: Path) -> list[str]:
    """Lines of all code, with continued lines joined."""
    found = [block or inline for block, inline in _CODE.findall(_text(page))]
    return "\n".join(found).replace("\\\n", " ").splitlines()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    assert _text(ENV_EXAMPLE) == env_example(), "run `make docs`"


@pytest.mark.parametrize("page", TABLES)
def test_tables_are_those_of_the_code(page: str) -> None:
    assert _text(ROOT / page) == with_tables(page), "run `make docs`"


def test_every_event_of_a_job_is_described() -> None:
    assert list(EVENTS) == list(get_args(EventName))


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Pages outside the table of contents and links to nothing are warnings, too."""
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-Wnq",
        "--keep-going",
        "-d",
        str(tmp_path / "cache"),
    ]
    ended = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "site/index.html").exists()


def test_the_readme_and_the_a1111_page_list_all_endpoints() -> None:
    document: dict[str, Any] = create_app(Settings()).openapi()
    offered = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    text = _text(ROOT / "README.md") + _text(ROOT / "docs/a1111.md")
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    listed = re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", "\n".join(rows))
    assert sorted(listed) == sorted(offered | {"GET /", "GET /docs", "GET /openapi.json"})


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_links_to_files_resolve() -> None:
    missing = []
    for page in PAGES:
        prose = _CODE.sub("", _text(page))
        targets = [link.partition("#")[0] for link in _LINK.findall(prose) if "://" not in link]
        broken = [target for target in targets if target and not (page.parent / target).exists()]
        missing += [f"{_name(page)}: {target}" for target in broken]
    assert missing == []


def test_files_named_in_code_exist() -> None:
    missing = [
        f"{_name(page)}: {path}"
        for page in PAGES
        for line in _code(page)
        for path in _PATH.findall(line)
        if not (ROOT / path).exists()
    ]
    assert missing == []


def test_files_named_in_sources_exist() -> None:
    rooms = ("api", "cli", "model", "tests", "training", "worker")
    missing = [
        f"{_name(source)}: {path}"
        for room in rooms
        for suffix in ("py", "lua")
        for source in sorted((ROOT / room).rglob(f"*.{suffix}"))
        for path in _PATH.findall(_text(source))
        if not (ROOT / path).exists()
    ]
    assert missing == []


_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?([a-z][\w-]*(?: up)?)", re.MULTILINE)
_SAFE = {"curl", "kirazuri", "printf", "export"}
"""Commands that a test may run: they end, and change nothing but their folder and the service."""


def test_every_program_of_a_page_runs_or_says_why_not() -> None:
    """tests/e2e/test_snippets.py runs those in the shell and in Python."""
    silent = [
        f"{one.name}: write `<!-- not run: why -->` above it"
        for one in ALL
        if one.language in PROGRAMS and not one.reason
        if one.language in ("js", "ts")
        or (one.language == "sh" and not set(_COMMAND.findall(one.code)) <= _SAFE)
    ]
    assert silent == []


def test_every_reason_stands_above_a_program() -> None:
    for page in PAGES:
        given = _text(page).count("<!-- not run: ")
        used = [one for one in snippets(page) if one.reason and one.language in PROGRAMS]
        assert given <= len(used), f"{_name(page)}: a reason is not directly above a program"


READERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}


def test_data_of_the_pages_can_be_read() -> None:
    for snippet in ALL:
        if (read := READERS.get(snippet.language)) and "…" not in snippet.code:
            try:
                read(snippet.code)
            except ValueError as exc:
                pytest.fail(f"{snippet.name}: {exc}")


def test_make_targets_exist() -> None:
    known = set(_TARGET.findall(_text(ROOT / "Makefile")))
    unknown = [
        f"{_name(page)}: make {target}"
        for page in PAGES
        for line in _code(page)
        for target in re.findall(r"\bmake ([a-z][a-z-]*)", line)
        if target not in known
    ]
    assert unknown == []


def _options(command: Any, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command as it is typed, with its options."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _options(inner, f"{path} {name}".strip())
    else:
        names = [(*option.opts, *option.secondary_opts) for option in command.params]
        yield path, set(itertools.chain(*names))


def test_command_line_options_exist() -> None:
    known = dict(_options(typer.main.get_command(app)))
    known = {name: options for name, options in known.items() if not name.startswith("bench ")}
    # The options of a benchmark belong to its module.
    call = re.compile(rf"\bkirazuri ({'|'.join(known)})\b(.*)")
    unknown = [
        f"{_name(page)}: {line}"
        for page in PAGES
        for line in _code(page)
        if (found := call.search(line))
        and not set(re.findall(r"--[a-z][a-z-]*", found[2])) <= known[found[1]]
    ]
    assert unknown == []


def test_settings_named_in_the_pages_exist() -> None:
    known = {f"KIRAZURI_{name.upper()}" for name in Settings.model_fields}
    compose = "".join(map(_text, ROOT.glob("docker-compose*.yml")))
    of_compose = set(re.findall(r"\$\{(KIRAZURI_[A-Z_]+):-", compose))
    known |= of_compose | {"KIRAZURI_MAX_QEUE"}  # the example of a misspelt one
    for page in PAGES:
        assert set(re.findall(r"\bKIRAZURI_[A-Z_]*[A-Z]\b", _text(page))) <= known


def _table(page: str, heading: str) -> str:
    """The first table under a heading of a page of docs/."""
    section = _text(ROOT / "docs" / page).partition(f"## {heading}")[2]
    return re.split(r"\n\n(?!\|)", section[section.index("\n| ") :])[0]


def test_the_queue_page_names_queue_keys_and_scripts() -> None:
    text = _text(ROOT / "docs/queue.md")
    assert f"queue `{rq_layout.QUEUE}`" in text
    keys = [value for value in vars(redis_keys).values() if isinstance(value, str)]
    keys = [key for key in keys if key.startswith("kirazuri:")]
    assert [key for key in (*keys, *redis_keys.PREFIXES.values()) if key not in text] == []
    scripts = (ROOT / "worker/queue/scripts").glob("*.lua")
    called = [script.stem for script in scripts if "\n-- ARGV: " in _text(script)]
    assert [name for name in called if f"`{name}`" not in text] == []


def test_every_warning_is_explained() -> None:
    described = re.findall(r"^\| `(\w+)` \|", _table("prompts.md", "Warnings"), re.MULTILINE)
    assert sorted(described) == sorted(get_args(WarningCode))


def test_every_field_of_a_dry_run_is_explained() -> None:
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
    for what, known in (("samplers", SAMPLERS), ("schedules", SCHEDULES)):
        rows = max(described, key=lambda found: len({*found} & known.keys()))
        told = f"docs/samplers.md: the table of {what} needs one row each, in the code's order; "
        told += f"it lacks {[*known.keys() - {*rows}]} and has {[*{*rows} - known.keys()]} besides"
        assert rows == [*known], told

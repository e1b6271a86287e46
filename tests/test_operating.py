"""The page of faults names metrics, alerts, log lines and answers that exist."""

import re

from tests.support.metrics import documented
from tests.support.paths import ROOT
from tests.support.queries import alert_rules, family_of
from worker.redis_io.server_faults import FAULTS
from worker.settings import Settings

PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`\n]+)`", PAGE)
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
SOURCES = "\n".join(
    file.read_text(encoding="utf-8")
    for folder in ("api", "cli", "worker")
    for file in (ROOT / folder).rglob("*.py")
)


def named(pattern: str) -> set[str]:
    """What the page names in code that matches this as a whole."""
    return {code for code in CODE if re.fullmatch(pattern, code)}


def test_metrics_exist() -> None:
    metrics = named(r"kirazuri_\w+")
    assert metrics
    assert {family_of(name) for name in metrics} <= set(documented())


def test_alerts_exist() -> None:
    alerts = named(r"Kirazuri[A-Z]\w+")
    assert alerts
    assert alerts <= {rule["alert"] for rule in alert_rules()}


def test_settings_exist() -> None:
    known = {f"KIRAZURI_{name.upper()}" for name in Settings.model_fields}
    assert {name.partition("=")[0] for name in named(r"KIRAZURI_\w+(=\w+)?")} <= known


def test_log_lines_exist() -> None:
    lines = named(r"event=\w+.*")
    assert lines
    for line in lines:
        event, _, fault = line.partition(" fault=")
        name = event.split()[0].removeprefix("event=")
        assert f"event={name}" in SOURCES or f'"{name}"' in SOURCES, line
        assert not fault or fault in FAULTS, line


_VARIABLE = re.compile(r"\S*[\d/…()=]\S*|\b[A-Z_]{4,}\b|[:;|→]| {2,}")


def is_written(line: str, sources: str) -> bool:
    """Whether the code has the event of a line, or the words between its variable parts."""
    if event := re.search(r"event=(\w+)", line):
        return f"event={event[1]}" in sources or f'"{event[1]}"' in sources
    phrases = [part.strip(" ,") for part in _VARIABLE.split(line)]
    return any(phrase in sources for phrase in phrases if len(phrase.split()) > 2)


def test_lines_of_the_cases_exist() -> None:
    cases = PAGE.partition("## What to do when")[2].partition("\n## ")[0]
    blocks = re.findall(r"```text\n(.*?)```", cases, re.DOTALL)
    assert len(blocks) == 9, "the tenth case is a problem"
    sources = re.sub(r'"\s+f?"', "", SOURCES)  # texts that continue on the next line
    lines = "".join(blocks).splitlines()
    assert [line for line in lines if not is_written(line, sources)] == []


def test_answers_of_readyz_and_lines_of_up_exist() -> None:
    """They are in the second and the fourth column of rows that name a fault in plain words."""
    texts = {
        text
        for row in ROWS
        if len(row) >= 6 and not row[0].startswith("`")
        for cell in (row[1], row[3])
        for text in re.findall(r"`([^`]+)`", cell)
        if not text.startswith(("event=", "/"))
    }
    assert [text for text in sorted(texts) if text not in SOURCES] == []


def test_all_faults_of_redis_are_explained() -> None:
    assert [row[0] for row in ROWS if row[0].strip("`") in FAULTS] == [f"`{f}`" for f in FAULTS]

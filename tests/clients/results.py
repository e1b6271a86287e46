"""The results of the client matrix: their file, and the table of docs/clients.md."""

import json
import re
from typing import Any

from tests.clients.programs import FOLDER, PROGRAMS, Program
from tests.support.paths import ROOT

FILE = FOLDER / "results.json"
PAGE = ROOT / "docs/clients.md"
_BEGIN, _END = "<!-- made by `make clients` -->\n", "<!-- end -->\n"

Results = dict[str, dict[str, Any]]
"""By client: `version`, and `checks` with a text for each that failed and null for the others."""


def read_results() -> Results:
    """The results of the last run."""
    found: Results = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return found


def write_results(results: Results) -> None:
    """Write the file and the table, in the order of the programs."""
    known = {
        program.client: results[program.client] for program in PROGRAMS if program.client in results
    }
    text = json.dumps(known, indent=2, ensure_ascii=False)
    FILE.write_text(f"{text}\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), known), encoding="utf-8")


def with_table(page: str, results: Results) -> str:
    """The page with the table of these results."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + table(results) + _END + after


def table(results: Results) -> str:
    """One row per client."""
    lines = ["| client | version | tried | result |", "|---|---|---|---|"]
    for client, result in results.items():
        checks = result["checks"]
        failed = [f"**{name}**: {reason}" for name, reason in checks.items() if reason]
        lines.append(
            f"| {client} | {result['version']} | {', '.join(checks)} | "
            f"{'; '.join(failed) or 'all work'} |"
        )
    return "\n".join(lines) + "\n"


def page_example(language: str, *, having: str = "") -> str:
    """The first block of the page in this language that contains a text."""
    page = PAGE.read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return next(block for block in found if having in block)


def complete(program: Program, found: dict[str, str | None], refused: str) -> dict[str, Any]:
    """The entry of a program; checks that it did not reach have failed."""
    checks: dict[str, str | None] = {
        name: found.get(name, "was not reached") for name in program.checks
    }
    checks["no connection to other machines"] = (
        f"tried to reach {', '.join(sorted(set(refused.split())))}" if refused else None
    )
    return {"version": program.versions, "checks": checks}

"""The code blocks of the documentation, and the reasons why some of them are not run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

PAGES = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
    ROOT / "training/README.md",
)

PROGRAMS = ("sh", "python", "js", "ts")
"""Languages of blocks that do something; the other blocks are read, not run."""

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"(?=\n+```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
_WHOLE_PAGE = re.compile(r"^<!-- nothing on this page is run: (.+?) -->$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Snippet:
    """A code block; `reason` says why it is not run, and is empty if it is.

    `output` is what the page says that it prints: a block of `text` that follows directly.
    """

    page: Path
    line: int
    language: str
    code: str
    reason: str
    output: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(page: Path) -> Iterator[Snippet]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    whole = _WHOLE_PAGE.search(text)
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        reason = found["reason"] or (whole[1] if whole else "")
        yield Snippet(page, line, found["language"], found["code"], reason, found["output"] or "")


def matches(text: str, shown: str) -> bool:
    """Whether a text is what a page shows: `…` stands for anything, indented lines continue."""
    lines = re.sub(r"\n {2,}", "", shown.strip())
    pattern = ".*?".join(map(re.escape, lines.split("…")))
    return re.fullmatch(pattern, text.strip(), re.DOTALL) is not None


ALL = tuple(snippet for page in PAGES for snippet in snippets(page))

"""Tells pytest-xdist which tests one test process runs, and when; what they share is started once.

Its own groups do nothing with pytest 9.2: it writes them into ids, which pytest builds anew.
"""

import re
from functools import cache
from typing import Any

import pytest

from tests.support.paths import ROOT

FIRST = (
    *("tests/e2e", "tests/cli/commands/test_up.py", "tests/model/engine", "tests/cli"),
    *("tests/model/bench", "tests/worker", "tests/api", "tests/test_architecture.py"),
    *("tests/test_docs.py", "tests/test_install.py", "tests/training"),
    *(f"tests/ui/test_{name}.py" for name in ("watching", "page", "gallery", "keeping", "picture")),
)
"""What runs first: what takes longest, so that all test processes end together."""

_USES_THE_SERVICE = re.compile(r"def \w+\([^)]*\bservice\b")


@cache
def group_of(file: str) -> str:
    """What runs together: a file, or all files below tests/e2e that use the complete service.

    `file` is relative to the repository.
    """
    if file.startswith("tests/e2e/"):
        text = (ROOT / file).read_text(encoding="utf-8")
        return "e2e" if _USES_THE_SERVICE.search(text) else file
    return file


def place_of(file: str) -> int:
    """When a file runs: the place in FIRST of itself or of a folder with it; or last."""
    places = (n for n, name in enumerate(FIRST) if f"{file}/".startswith(f"{name}/"))
    return next(places, len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A scheduler that gives a whole group to one process."""
    # Imported here: a run without pytest-xdist needs no scheduler.
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    return GroupScheduling(config, log)

"""Tells pytest-xdist which tests one test process runs, so that what they share is started once.

Its own groups do nothing with pytest 9.2: it writes them into ids, which pytest builds anew.
"""

import re
from functools import cache
from typing import Any

import pytest

from tests.support.paths import ROOT

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A scheduler that gives a whole group to one process."""
    # Imported here: a run without pytest-xdist needs no scheduler.
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    return GroupScheduling(config, log)

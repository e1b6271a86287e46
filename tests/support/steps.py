"""Counts the work of a function, which does not depend on the machine's speed."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps(work: Callable[[], Any]) -> int:
    """Number of calls, of Python and built-in functions, and of lines that run."""
    count = 0

    def count_call(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event == "c_call"

    def count_line(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event in ("call", "line")
        return count_line

    before = sys.getprofile(), sys.gettrace()
    sys.setprofile(count_call)
    sys.settrace(count_line)
    try:
        work()
    finally:
        sys.settrace(before[1])
        sys.setprofile(before[0])
    return count

"""Runs one check on many cases and reports all failures together."""

from collections.abc import Callable, Iterable
from typing import Any


def check_all(check: Callable[..., None], cases: Iterable[Any]) -> None:
    """Call `check` for each case (tuples are unpacked); fail with the list of failed cases."""
    failures = []
    for case in cases:
        try:
            check(*case) if isinstance(case, tuple) else check(case)
        except Exception as failure:  # noqa: BLE001 - the report names every failed case
            failures.append(f"{case!r:.100}: {failure!r}")
    assert not failures, "\n".join(failures)

"""The API with counters of the work that its event loop does in one go, for the short siege.

The counts are the same on every machine.
"""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from api import server
from api.http.request_body import MAX_JSON_VALUES
from api.middleware.h11_protocol import LimitedH11Protocol
from tests.siege.service import BesiegedService
from tests.support.cli import clean_environment

_FILE = "SIEGE_UNITS"

MOST: Final = {
    "events of the HTTP parser": 32,
    "bytes taken from a socket": 32_768,
    "values of JSON": MAX_JSON_VALUES,
}
"""Bounds for one piece of work on the event loop."""


class _Longest:
    """The longest piece of work by unit; writes it down whenever there is a longer one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._longest: Counter[str] = Counter()

    def note(self, unit: str, size: int) -> None:
        """Count work, if the event loop does it: not other threads, and not the start."""
        if asyncio._get_running_loop() is not None and size > self._longest[unit]:
            self._longest[unit] = size
            self._file.write_text(json.dumps(self._longest), encoding="utf-8")


def longest_work(service: BesiegedService) -> Counter[str]:
    """The longest pieces of work so far, by unit."""
    return Counter(json.loads(service.units.read_text(encoding="utf-8")))


def _values_of(parsed: Any) -> int:
    """How many values, objects and lists there are in parsed JSON."""
    values, found = [parsed], 0
    while values:
        found += 1
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
    return found


def _count(longest: _Longest) -> None:
    handle_events = LimitedH11Protocol.handle_events
    buffer_updated = LimitedH11Protocol.buffer_updated
    loads = json.loads

    def count_events(protocol: LimitedH11Protocol) -> None:
        handle_events(protocol)
        longest.note("events of the HTTP parser", protocol.conn.events_of_slice)

    def count_bytes(protocol: LimitedH11Protocol, nbytes: int) -> None:
        longest.note("bytes taken from a socket", nbytes)
        buffer_updated(protocol, nbytes)

    def count_json(text: Any, **options: Any) -> Any:
        parsed = loads(text, **options)
        longest.note("values of JSON", _values_of(parsed))
        return parsed

    for place, name, counted in (
        (LimitedH11Protocol, "handle_events", count_events),
        (LimitedH11Protocol, "buffer_updated", count_bytes),
        (json, "loads", count_json),
    ):
        setattr(place, name, counted)


if __name__ == "__main__":
    _count(_Longest(Path(clean_environment()[_FILE])))
    server.main()

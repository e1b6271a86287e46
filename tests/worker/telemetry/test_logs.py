"""JSON log lines: their fields, the ids of the context, and the configuration."""

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from tests.support.log_texts import HOSTILE_TEXTS
from worker.telemetry.logs import JsonLines, log_context, log_context_value


def logged_line(message: str, *arguments: Any, name: str = "worker.x", **options: Any) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger(name)  # noqa: LOG001 - used here only
    logger.addHandler(handler)
    logger.warning(message, *arguments, **options)
    return stream.getvalue()


def logged(message: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Log a message; returns its JSON object."""
    (line,) = logged_line(message, *arguments, **options).splitlines()
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_pairs_become_fields_and_numbers_stay_numbers() -> None:
    template = "job=%s event=webhook_%s queue=%.1fs attempt=%d code=%s"
    entry = logged(template, "J", "sent", 1.2345678, 2, None)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "WARNING",
        "logger": "worker.x",
        "message": "job=J event=webhook_sent queue=1.2s attempt=2 code=None",
        "job": "J",
        "event": "webhook_sent",
        "queue": 1.2346,
        "attempt": 2,
        "code": None,
    }


def test_arguments_outside_pairs_are_skipped() -> None:
    entry = logged("%d of %d for job=%s failed", 1, 2, "J")
    assert entry["job"] == "J"
    assert entry["message"] == "1 of 2 for job=J failed"


def test_a_clients_text_stays_one_value() -> None:
    text = 'x event=accepted\n{"level": "INFO", "job": "forged"}'
    entry = logged("job=%s event=refused reason=%s", "J", text)
    assert (entry["event"], entry["reason"], entry["job"]) == ("refused", text, "J")
    entry = logged("level=%s message=%s logger=%s time=%s", "a", "b", "c", "d")
    assert (entry["level"], entry["logger"]) == ("WARNING", "worker.x")


def test_lines_are_printable_ascii() -> None:
    for name, text in HOSTILE_TEXTS.items():
        line = logged_line("request=%s", text)
        assert line[:-1].isascii(), name
        assert line[:-1].isprintable(), name
        assert json.loads(line)["request"] == text, name


def test_messages_of_libraries_have_no_fields() -> None:
    entry = logged("retry=%s", "https://host/?key=secret", name="library")
    assert "retry" not in entry
    assert logged("%(a)s=%(b)s", {"a": 1, "b": 2})["message"] == "1=2"


def test_exceptions_are_a_field() -> None:
    entry = logged("event=broken", exc_info=ValueError("reason"))
    assert entry["event"] == "broken"
    assert entry["exception"] == "ValueError: reason"


def test_ids_come_from_the_context() -> None:
    assert "request" not in logged("x")
    with log_context(request="r1", trace_id="t1"):
        with log_context(request=None, trace_id="t2"):
            entry = logged("job=%s", "J")
            assert (entry["request"], entry["trace_id"], entry["job"]) == ("r1", "t2", "J")
            assert log_context_value("request") == "r1"
        assert logged("request=%s", "another")["request"] == "another"
        assert logged("x")["trace_id"] == "t1"
    assert log_context_value("request") is None


CONFIGURE = """
import logging
from worker.telemetry.logs import configure_logging
from worker.settings import Settings
configure_logging(Settings(_env_file=None, log_format={format!r}, log_level={level!r}))
for name in ("worker.x", "library", "uvicorn.error"):
    for level in (10, 20, 30):
        logging.getLogger(name).log(level, "event=%s\\r", name)
"""


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("DEBUG", ["worker.x"] * 3 + ["library"] + ["uvicorn.error"] * 3),
        ("INFO", ["worker.x"] * 2 + ["library"] + ["uvicorn.error"] * 2),
        ("ERROR", []),
    ],
)
def test_the_level_applies_to_the_services_own_lines(level: str, expected: list[str]) -> None:
    """Libraries only log warnings: some log whole URLs and headers."""
    lines = configured_lines("json", level)
    assert [json.loads(line)["logger"] for line in lines] == expected


def test_text_lines_are_escaped() -> None:
    first, *_ = configured_lines("text", "INFO")
    assert first.endswith(" INFO worker.x event=worker.x\\u000d")


def configured_lines(log_format: str, level: str) -> list[str]:
    code = CONFIGURE.format(format=log_format, level=level)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stderr.splitlines()

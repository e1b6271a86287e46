"""Lines of the log as JSON objects: their fields, what they are about, and how both are set up."""

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from tests.support.log_texts import NASTY
from worker.telemetry.logs import JsonLines, log_context, log_context_value


def logged(message: str, *arguments: Any, name: str = "worker.x", **options: Any) -> dict[str, Any]:
    """The one object that a message becomes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger(name)  # noqa: LOG001 - of nobody else
    logger.addHandler(handler)
    logger.warning(message, *arguments, **options)
    (line,) = stream.getvalue().splitlines()
    entry: dict[str, Any] = json.loads(line)
    return entry


def test_pairs_of_a_message_are_fields_and_numbers_stay_numbers() -> None:
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


def test_what_stands_between_pairs_takes_its_own_arguments() -> None:
    entry = logged("%d of %d for job=%s failed", 1, 2, "J")
    assert entry["job"] == "J"
    assert entry["message"] == "1 of 2 for job=J failed"


def test_what_a_client_sent_is_one_value_and_cannot_pose_as_a_field() -> None:
    text = 'x event=accepted\n{"level": "INFO", "job": "forged"}'
    entry = logged("job=%s event=refused reason=%s", "J", text)
    assert (entry["event"], entry["reason"], entry["job"]) == ("refused", text, "J")
    entry = logged("level=%s message=%s logger=%s time=%s", "a", "b", "c", "d")
    assert (entry["level"], entry["logger"]) == ("WARNING", "worker.x")


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_no_character_reaches_a_terminal_as_it_is(text: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("worker.x")  # noqa: LOG001 - of nobody else
    logger.addHandler(handler)
    logger.warning("request=%s", text)
    line = stream.getvalue()
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    assert json.loads(line)["request"] == text


def test_messages_of_libraries_are_left_alone() -> None:
    entry = logged("retry=%s", "https://host/?key=secret", name="library")
    assert "retry" not in entry
    assert logged("%(a)s=%(b)s", {"a": 1, "b": 2})["message"] == "1=2"


def test_exceptions_are_part_of_the_object() -> None:
    entry = logged("event=broken", exc_info=ValueError("reason"))
    assert entry["event"] == "broken"
    assert entry["exception"] == "ValueError: reason"


def test_ids_are_those_of_what_goes_on() -> None:
    assert "request" not in logged("x")
    with log_context(request="r1", trace_id="t1"):
        with log_context(request=None, trace_id="t2"):
            entry = logged("job=%s", "J")
            assert (entry["request"], entry["trace_id"], entry["job"]) == ("r1", "t2", "J")
            assert log_context_value("request") == "r1"
        assert logged("request=%s", "another")["request"] == "another"
        assert logged("x")["trace_id"] == "t1"
    assert log_context_value("request") is None


SET_UP = """
import logging
from tests.support.log_texts import NASTY
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
def test_the_level_is_that_of_our_own_lines(level: str, expected: list[str]) -> None:
    """Libraries log whole URLs and headers."""
    lines = _set_up("json", level)
    assert [json.loads(line)["logger"] for line in lines] == expected


def test_text_is_for_people() -> None:
    first, *_ = _set_up("text", "INFO")
    assert first.endswith(" INFO worker.x event=worker.x\\u000d")


def _set_up(log_format: str, level: str) -> list[str]:
    code = SET_UP.format(format=log_format, level=level)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stderr.splitlines()

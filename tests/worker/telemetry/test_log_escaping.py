"""Log lines with hostile texts stay one line of plain characters."""

import io
import logging
import unicodedata

import pytest

from tests.support.log_texts import HOSTILE_TEXTS
from worker.telemetry.log_escaping import LineFormatter, escape, escape_line


def logged(record: str, *arguments: object, error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.Logger("test")  # noqa: LOG001 - used here only
    logger.addHandler(handler)
    logger.error(record, *arguments, exc_info=error)
    return stream.getvalue()


def fail(text: str) -> None:
    raise ValueError(text)


def is_plain(text: str) -> bool:
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


def test_a_record_is_one_line_of_plain_characters() -> None:
    for name, text in HOSTILE_TEXTS.items():
        line = logged("request=%s", text)
        assert line.endswith("\n"), name
        assert is_plain(line[:-1]), name
        line.encode()
        assert line.startswith("ERROR test request="), name


def test_a_traceback_keeps_its_lines_and_looks_like_no_record() -> None:
    for name, text in HOSTILE_TEXTS.items():
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is what is tested
            fail(text)
        lines = logged("failed", error=raised.value).splitlines()
        assert lines[0] == "ERROR test failed"
        assert all(is_plain(line) for line in lines), name
        assert all(line.startswith("  ") for line in lines[2:]), name


def test_harmless_text_is_unchanged() -> None:
    text = "1girl, 青い髪, naïve café — 👍 [tag:1.2] \\(a\\)"
    assert escape(text) == escape_line(text) == text
    assert escape("a\nb") == "a\nb"
    assert escape_line("a\nb") == "a\\nb"

"""Escapes log lines, so that clients cannot forge lines or send control codes to a terminal."""

import logging
import re

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

# C0, C1, DEL; line separators; marks that change the direction of text; zero-width characters.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def escape(text: str) -> str:
    """Replace control and format characters with Unicode escapes; keeps line feeds."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_line(text: str) -> str:
    """As `escape`, and escapes line feeds."""
    return escape(text).replace("\n", "\\n")


class LineFormatter(logging.Formatter):
    """Formats a record as one escaped line, followed by its traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The escaped line without a traceback."""
        return escape_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        """The escaped, indented traceback; an exception may quote what a client sent."""
        return escape(super().formatException(ei)).replace("\n", "\n  ")  # type: ignore[arg-type]

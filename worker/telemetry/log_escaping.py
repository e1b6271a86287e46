"""Log lines that nobody outside can forge: what ends a line or moves a cursor is written out."""

import logging
import re

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

# C0, C1, DEL; separators of lines; marks that turn the direction of text; zero-width ones.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def escape(text: str) -> str:
    """`text` with every character that a terminal or a reader of logs obeys written as an escape.

    The line feed alone is left: whoever writes a single line takes it out with `one_line`.
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_line(text: str) -> str:
    """As `visible`, and on one line."""
    return escape(text).replace("\n", "\\n")


class LineFormatter(logging.Formatter):
    """One line for every record, except that tracebacks keep theirs."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of the message alone."""
        return escape_line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        """A traceback; the message of an exception may hold what a client sent."""
        return escape(super().formatException(ei)).replace("\n", "\n  ")  # type: ignore[arg-type]

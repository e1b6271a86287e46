"""Configures logging: text or JSON lines, with the ids of the request they belong to.

The service's own messages are pairs, such as `logger.info("job=%s event=started", ...)`. In JSON
each pair is a field.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from worker.misspelt_settings import warnings_about_names
from worker.settings import Settings
from worker.telemetry.log_escaping import LOG_FORMAT, LineFormatter

_OWN_PACKAGES = ("api", "cli", "model", "worker")
_PLACEHOLDER = re.compile(r"%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]")
_NAME = re.compile(r"[a-z]\w*")

_context: ContextVar[Mapping[str, str]] = ContextVar("log_context", default=MappingProxyType({}))


@contextmanager
def log_context(**ids: str | None) -> Iterator[None]:
    """Add these ids, such as `request` and `trace_id`, to all log lines inside."""
    token = _context.set(
        {**_context.get(), **{name: value for name, value in ids.items() if value}}
    )
    try:
        yield
    finally:
        _context.reset(token)


def log_context_value(name: str) -> str | None:
    """The id of this name in the current context."""
    return _context.get().get(name)


class JsonLines(JsonFormatter):
    """Formats a record as a JSON object: time, level, logger, message, its pairs and ids."""

    def __init__(self) -> None:
        names = {"levelname": "level", "name": "logger", "timestamp": "time"}
        names["exc_info"] = "exception"
        super().__init__(
            ["levelname", "name", "message"],
            timestamp=True,
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, for terminals
            rename_fields=names,
            json_ensure_ascii=True,  # escapes control and format characters
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Add the pairs of the message and the ids of the context."""
        super().add_fields(log_data, record, message_dict)
        for name, value in {**_context.get(), **_span_ids(), **_pairs(record)}.items():
            log_data.setdefault(name, value)


def _span_ids() -> dict[str, str]:
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _pairs(record: logging.LogRecord) -> dict[str, Any]:
    """The `name=value` pairs of a message; numbers stay numbers."""
    if record.name.partition(".")[0] not in _OWN_PACKAGES or not isinstance(
        record.args, tuple | None
    ):
        return {}
    found: dict[str, Any] = {}
    values = iter(record.args or ())
    for word in str(record.msg).split():
        placeholders = _PLACEHOLDER.findall(word)
        arguments = [next(values, None) for _ in placeholders]
        name, is_pair, text = word.partition("=")
        if is_pair and _NAME.fullmatch(name):
            found[name] = _value(text, placeholders, arguments)
    return found


def _value(text: str, placeholders: list[str], arguments: list[Any]) -> Any:
    """The value of a pair: a number for `%.1fs`, text for `webhook_%s`."""
    if placeholders and text.startswith(placeholders[0]) and len(placeholders) == 1:
        (value,) = arguments
        if isinstance(value, float):
            return round(value, 4)
        return value if value is None or isinstance(value, int) else str(value)
    return text % tuple(arguments)


def configure_logging(settings: Settings) -> None:
    """Log to stderr; does nothing if the embedding program has configured logging.

    The level applies to the service's own loggers. Libraries only log warnings: some log whole URLs
    and headers. Warns of variables that are no settings.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if settings.log_format == "json" else LineFormatter(LOG_FORMAT)
    )
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    for name in (*_OWN_PACKAGES, "uvicorn"):
        logging.getLogger(name).setLevel(settings.log_level)
    for warning in warnings_about_names():
        logging.getLogger(__name__).warning("%s", warning)

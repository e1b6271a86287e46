"""Collects the messages of expected exceptions, for tests that loop over many bad inputs."""

from collections.abc import Callable


def message_of(kind: type[Exception], action: Callable[[], object]) -> str:
    """The message of the exception that `action` raises; "" if it raises none of this kind."""
    try:
        action()
    except kind as exc:
        return str(exc) or "an exception without a message"
    return ""

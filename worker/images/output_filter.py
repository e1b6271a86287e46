"""Loads and calls the operator's output filter, which checks every image before it is stored.

docs/policy.md describes how to write a filter and name it in the settings.
"""

from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Protocol, cast

from model.resolved_request import ResolvedRequest
from worker.images.input_images import Pixels

ENTRY_POINTS = "kirazuri.output_filters"

_MAX_REASON_CHARS = 200


class OutputFilter(Protocol):
    """Checks one image. Several threads call it at once."""

    def __call__(self, pixels: Pixels, request: ResolvedRequest) -> str | None:
        """Return why an image is refused, or None to accept it. Clients see the reason.

        `pixels` is read-only, (height, width, 3) uint8 RGB.
        """


class OutputRefused(Exception):
    """The filter refuses an image; the message is its reason."""


class OutputFilterFailed(Exception):
    """The filter raised an error, or returned neither None nor a reason."""


def open_filter(name: str) -> OutputFilter:
    """The filter of this name: an entry point, or `package.module:attribute`.

    The name stands for a factory, which is called without arguments and returns the filter.

    Raises:
        ValueError: there is no such factory, or it does not return a callable.
    """
    try:
        found = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
        factory = found[0].load() if found else resolve_name(name)
        output_filter = factory()
    except Exception as exc:
        raise ValueError(f"output filter {name!r}: {type(exc).__name__}: {exc}") from exc
    if callable(output_filter):
        return cast(OutputFilter, output_filter)
    raise ValueError(
        f"output filter {name!r}: its factory returned {output_filter!r}, which is not callable"
    )


def check_output(output_filter: OutputFilter, pixels: Pixels, request: ResolvedRequest) -> None:
    """Check an image.

    Raises:
        OutputRefused: the filter refuses it.
        OutputFilterFailed: the filter failed.
    """
    read_only = pixels.view()
    read_only.flags.writeable = False
    try:
        reason: object = output_filter(read_only, request)
    except Exception as exc:
        raise OutputFilterFailed(f"{type(exc).__name__}: {exc}") from exc
    if reason is None:
        return
    if not isinstance(reason, str):
        raise OutputFilterFailed(f"it returned {reason!r}, which is neither None nor a reason")
    raise OutputRefused(reason[:_MAX_REASON_CHARS] or "no reason given")

"""The operator's own look at every finished picture before it is stored. Knows no jobs.

docs/policy.md tells how a filter is written and named in the settings.
"""

from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Protocol, cast

from model.resolved_request import ResolvedRequest
from worker.images.input_images import Pixels

ENTRY_POINTS = "kirazuri.output_filters"

_MAX_REASON_CHARS = 200


class OutputFilter(Protocol):
    """Looks at one picture. Called by several threads at once."""

    def __call__(self, pixels: Pixels, request: ResolvedRequest) -> str | None:
        """Say why a picture, (height, width, 3) uint8 RGB and not to be written to, is refused.

        None lets it pass. The reason is shown to the client.
        """


class OutputRefused(Exception):
    """The filter refuses a picture; the message is its reason."""


class OutputFilterFailed(Exception):
    """The filter raised an error, or answered neither None nor a reason: nothing passes."""


def open_filter(name: str) -> OutputFilter:
    """The filter of a setting: an entry point's name, or `package.module:attribute`.

    What it names is called once, without arguments, and gives the filter.

    Raises:
        ValueError: there is nothing of this name, or it gives nothing that can be called.
    """
    try:
        found = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
        factory = found[0].load() if found else resolve_name(name)
        output_filter = factory()
    except Exception as exc:
        raise ValueError(f"output filter {name!r}: {type(exc).__name__}: {exc}") from exc
    if callable(output_filter):
        return cast(OutputFilter, output_filter)
    raise ValueError(f"output filter {name!r}: it gives {output_filter!r}, which cannot be called")


def look(output_filter: OutputFilter, pixels: Pixels, request: ResolvedRequest) -> None:
    """Let a picture pass.

    Raises:
        PictureRefused: the filter has a reason against it.
        FilterBroken: the filter could not look, which refuses the picture too.
    """
    seen = pixels.view()
    seen.flags.writeable = False
    try:
        reason: object = output_filter(seen, request)
    except Exception as exc:
        raise OutputFilterFailed(f"{type(exc).__name__}: {exc}") from exc
    if reason is None:
        return
    if not isinstance(reason, str):
        raise OutputFilterFailed(f"it answered {reason!r}, which is neither None nor a reason")
    raise OutputRefused(reason[:_MAX_REASON_CHARS] or "no reason given")

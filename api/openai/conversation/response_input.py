"""Reads the input of the Responses API and the parameters of its tool for images."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from fastapi.exceptions import RequestValidationError

from api.http.field_errors import printable
from api.openai.conversation.messages import Turn, read_turn
from api.openai.errors import openai_names
from api.openai.image_references import read_reference, wrong_field

_TOOL: Final = "image_generation"
_TOOL_FIELDS: Final = (
    *("background", "output_compression", "output_format", "partial_images", "quality", "size"),
)
_MAX_NOTES: Final = 16
_MAX_VALUE_CHARS: Final = 512
_NO_STATE: Final = ("conversation", "previous_response_id")


def read_input(raw: Mapping[str, Any]) -> Turn:
    """The turn in `input`, a text or a list of items, and in `instructions`.

    Raises:
        RequestValidationError: as `read_turn`, or `background` is true.
    """
    if raw.get("background") is True:
        reason = "responses are not kept; the job of a call continues if the client leaves"
        raise RequestValidationError([wrong_field(reason, "background")])
    items = raw.get("input")
    if isinstance(items, str):
        turn = read_turn([{"role": "user", "content": items}], "input")
        turn = replace(turn, place="input", image_place="input")
    else:
        turn = read_turn(items, "input")
    instructions = raw.get("instructions")
    if isinstance(instructions, str) and turn.first_text == turn.text:
        turn = replace(turn, instructions=[*turn.instructions, instructions])
    return turn


class ImageTool:
    """The tool for images in `tools`, if the request has it: its place and its parameters."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """Find the tool; raises RequestValidationError if `tools` is no list of objects."""
        tools = raw.get("tools")
        if tools is not None and not isinstance(tools, list):
            raise RequestValidationError([wrong_field("must be a list", "tools")])
        found = (
            (index, tool)
            for index, tool in enumerate(tools or ())
            if isinstance(tool, dict) and tool.get("type") == _TOOL
        )
        self._index, self._tool = next(found, (0, {}))

    @property
    def values(self) -> dict[str, Any]:
        """Its parameters under the names of `/v1/images/generations`."""
        return {name: self._tool[name] for name in _TOOL_FIELDS if name in self._tool}

    def mask(self) -> str | None:
        """The reference in `input_image_mask`; raises RequestValidationError."""
        mask = self._tool.get("input_image_mask")
        return None if mask is None else read_reference(mask, *self._place("input_image_mask"))

    def check_action(self, turn: Turn) -> Turn:
        """The turn without its images if the tool shall not edit.

        Raises:
            RequestValidationError: it shall edit, but there is no image; or it is another action.
        """
        action = self._tool.get("action") or "auto"
        if action not in ("auto", "edit", "generate"):
            reason = "expected one of auto, edit, generate"
        elif action == "edit" and not turn.images:
            reason = "there is no image in the last message of the user"
        else:
            return replace(turn, images=()) if action == "generate" else turn
        raise RequestValidationError([wrong_field(reason, *self._place("action"))])

    @contextmanager
    def names(self) -> Iterator[None]:
        """Name the parameters of the tool in errors by their place in the body."""
        places = {name: name for name in self.values}
        if "input_image_mask" in self._tool:
            places["mask"] = "input_image_mask"
        names = {name: ".".join(map(str, self._place(at))) for name, at in places.items()}
        with openai_names(names):
            yield

    def _place(self, name: str) -> tuple[str, int, str]:
        return "tools", self._index, name


def notes_on_state(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """What the service does not know because it keeps no conversations."""
    return tuple(
        f"{name} is ignored: only the last message of the user counts"
        for name in _NO_STATE
        if raw.get(name) is not None
    )


def own_notes(raw: Mapping[str, Any]) -> dict[str, str]:
    """The `metadata` of the client, which is sent back; only texts."""
    metadata = raw.get("metadata")
    items = metadata.items() if isinstance(metadata, dict) else ()
    return {
        printable(name): printable(value, limit=_MAX_VALUE_CHARS)
        for name, value in islice(items, _MAX_NOTES)
        if isinstance(value, str)
    }

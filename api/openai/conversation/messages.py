"""Finds in a conversation what to draw: the text and the image of the last message of the user.

Only the end of a conversation is read, so that a long history costs nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from fastapi.exceptions import RequestValidationError

from api.http.field_errors import printable
from api.openai.image_references import read_reference, wrong_field

_ROLES: Final = ("assistant", "developer", "function", "system", "tool", "user")
_INSTRUCTING: Final = ("developer", "system")
_TEXT_PARTS: Final = ("text", "input_text", "output_text")
_IMAGE_PARTS: Final = ("image_url", "input_image")
_FIRST_MESSAGES: Final = 20
"""How many of the first messages are searched for the topic of a conversation."""
_LAST_MESSAGES: Final = 1000
"""How many of the last messages are searched for one of the user."""
_READ_CHARS: Final = 20_000
"""How much of a part is read. A prompt is shorter; of longer texts the beginning says enough."""
MAX_PARTS: Final = 100
"""The most parts of one message."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said last, and what the client itself added.

    `text` is None if the user said nothing. `instructions` are texts for the model that belong to
    this turn: system messages after the user's message, or before the only one. `place` is the
    path of the user's message in the body, and `first_text` what the user said first.
    """

    text: str | None
    images: Sequence[str]
    instructions: Sequence[str]
    place: str
    image_place: str
    first_text: str


def read_turn(items: Any, field: str) -> Turn:
    """Read a list of messages; `field` is its name in the body.

    Items without a role but with a type, such as earlier calls of a tool, are passed over.

    Raises:
        RequestValidationError: it is not a list of messages, or the user's last message has
            something that cannot be read.
    """
    if not isinstance(items, list) or not items:
        raise RequestValidationError([wrong_field("expected a list with messages", field)])
    instructions: list[str] = []
    for index in range(len(items) - 1, max(-1, len(items) - 1 - _LAST_MESSAGES), -1):
        role = _role(items[index], field, index)
        if role in _INSTRUCTING:
            instructions.append(plain_text(items[index].get("content")))
        if role == "user":
            text, images, image_place = _read_user(items[index], field, index)
            if index <= 1:
                instructions += _before(items[:index])
            place = f"{field}.{index}.content"
            first = first_user_text(items)
            return Turn(text, images, instructions, place, image_place, first)
    return Turn(None, (), instructions, field, field, "")


def first_user_text(items: Sequence[Any]) -> str:
    """What the user said first, if it is near the beginning."""
    for item in islice(items, _FIRST_MESSAGES):
        if isinstance(item, dict) and item.get("role") == "user":
            return plain_text(item.get("content"))
    return ""


def plain_text(content: Any) -> str:
    """The text of a message, without any other parts."""
    if isinstance(content, str):
        return content
    parts = content[:MAX_PARTS] if isinstance(content, list) else []
    return "\n".join(text for part in parts if (text := _part_text(part)) is not None)


def _before(items: Sequence[Any]) -> Iterator[str]:
    for item in items:
        if isinstance(item, dict) and item.get("role") in _INSTRUCTING:
            yield plain_text(item.get("content"))


def _role(item: Any, field: str, index: int) -> str | None:
    role = item.get("role") if isinstance(item, dict) else None
    if role is None and field == "input" and isinstance(item, dict) and "type" in item:
        return None
    if role in _ROLES:
        return str(role)
    found = f"; got {printable(role)!r}" if isinstance(role, str) else ""
    raise RequestValidationError(
        [wrong_field(f"expected one of {', '.join(_ROLES)}{found}", field, index, "role")]
    )


def _read_user(item: Mapping[str, Any], field: str, index: int) -> tuple[str, Sequence[str], str]:
    """Text, images and the place of the first image in a message of the user."""
    content, place = item.get("content"), f"{field}.{index}.content"
    if content is None or isinstance(content, str):
        return content or "", (), place
    if not isinstance(content, list):
        reason = "expected a text or a list of parts"
        raise RequestValidationError([wrong_field(reason, field, index, "content")])
    if len(content) > MAX_PARTS:
        reason = f"{len(content)} parts; at most {MAX_PARTS} are read"
        raise RequestValidationError([wrong_field(reason, field, index, "content")])
    texts: list[str] = []
    images: list[str] = []
    image_place = place
    for number, part in enumerate(content):
        loc = (field, index, "content", number)
        if (text := _part_text(part)) is not None:
            texts.append(text)
        elif isinstance(part, dict) and part.get("type") in _IMAGE_PARTS:
            image_place = image_place if images else f"{place}.{number}"
            images.append(read_reference(part, *loc))
        else:
            raise RequestValidationError([wrong_field(_unreadable(part), *loc)])
    return "\n".join(texts), images, image_place


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part[:_READ_CHARS]
    is_text = isinstance(part, dict) and part.get("type") in _TEXT_PARTS
    text = part.get("text") if is_text else None
    return text[:_READ_CHARS] if isinstance(text, str) else None


def _unreadable(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    shown = f"parts of type {printable(kind)!r}" if isinstance(kind, str) else "such parts"
    return f"{shown} cannot be read here; send texts and at most one image"

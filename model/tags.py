"""Defines tags by group and assembles a prompt from them; the base of all that clients send."""

import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.card import Prompting, TagGroup
from model.prompt_grammar import MAX_PROMPT_CHARS, check_characters, drop_invisible

MAX_TAG_CHARS = 200
MAX_TAGS = 100
"""Maximum number of tags in one group."""

_ESCAPED = re.compile(r"\\([()])")
_PARENTHESIS = re.compile(r"[()]")
_WEIGHTED = re.compile(r"\(.*:\s*[-+]?[\d.]+\s*\)")
_EYE = r"[^\w\s]{0,2}[^\W_]?[^\w\s]{0,2}"
_FACE = re.compile(rf"(?!_){_EYE}_+{_EYE}(?<!_)")


def _check_single_tag(text: str) -> str:
    """Refuse a text that would become several tags or none, or a weight."""
    for separator, name in ((",", "comma"), ("\n", "line break"), ("\r", "line break")):
        if separator in text:
            raise ValueError(f"a tag cannot contain a {name}; write each tag as a separate string")
    if not text.replace("_", " ").strip():
        raise ValueError("a tag cannot be blank")
    if _WEIGHTED.fullmatch(text.strip()):
        raise ValueError("tags are literal; write a weight such as (smile:1.2) in `prompt`")
    return text


Tag = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TAG_CHARS),
    AfterValidator(check_characters),
    AfterValidator(lambda tag: drop_invisible(tag).text),
    AfterValidator(_check_single_tag),
]
TagList = Annotated[list[Tag], Field(max_length=MAX_TAGS)]


def whole_number(value: Any) -> Any:
    """The integer that a float such as 20.0 equals: JSON has only one type of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ClientModel(BaseModel):
    """What a client sends: no unknown fields, no conversions but 20.0 for an integer."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_whole_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[f"{info.field_name}"].annotation
        return whole_number(value) if annotation in (int, int | None) else value


class Tags(ClientModel):
    """Tags by group. They are literal: parentheses are part of the tag, `_` is a space."""

    quality: TagList = Field(
        default=[], description="Quality of the image.", examples=[["masterpiece"]]
    )
    meta: TagList = Field(
        default=[], description="Kind of file or source.", examples=[["absurdres"]]
    )
    safety: TagList = Field(default=[], description="Safety rating.", examples=[["safe"]])
    subject: TagList = Field(
        default=[], description="Number and kind of people.", examples=[["1girl", "solo"]]
    )
    character: TagList = Field(
        default=[], description="Character names.", examples=[["hatsune_miku"]]
    )
    series: TagList = Field(
        default=[], description="Series that the characters are from.", examples=[["vocaloid"]]
    )
    artist: TagList = Field(
        default=[],
        description="Artists to imitate; each gets the card's prefix unless it has it.",
        examples=[["wlop"]],
    )
    general: TagList = Field(
        default=[], description="All other tags.", examples=[["long_hair", "smile"]]
    )

    @model_validator(mode="after")
    def _is_short_enough(self) -> Self:
        length = max_prompt_length(self)
        if length > MAX_PROMPT_CHARS:
            context = {"length": length, "le": MAX_PROMPT_CHARS}
            reason = "the tags have {length} characters; at most {le} are allowed"
            raise PydanticCustomError("tags_too_long", reason, context)
        return self


def assemble_prompt(tags: Tags | None, prompting: Prompting, prompt: str) -> str:
    """Join the tags, in the card's order, and `prompt`."""
    if tags is None:
        return prompt
    groups = _groups(tags)
    parts = [
        escape_tag(tag, prefix=prompting.artist_prefix if group == "artist" else "")
        for group in prompting.tag_order
        for tag in groups[group]
    ]
    return ", ".join([*parts, prompt] if prompt else parts)


def max_prompt_length(tags: Tags | None) -> int:
    """Upper bound of the characters of the tags in a prompt, with separators and escapes."""
    groups = _groups(tags) if tags else {}
    return sum(len(escape_tag(tag, prefix="@")) + 2 for group in groups.values() for tag in group)


def has_tags(tags: Tags | None) -> bool:
    """Whether any group has a tag."""
    return tags is not None and any(_groups(tags).values())


def escape_tag(tag: str, *, prefix: str = "") -> str:
    r"""Write a tag for a prompt: one space between words, parentheses escaped once.

    `watercolor_(medium)` and `watercolor \(medium\)` both become `watercolor \(medium\)`.
    `prefix` is added unless the tag already starts with it.
    """
    text = replace_underscores(_ESCAPED.sub(r"\1", tag))
    if not text.startswith(prefix):
        text = prefix + text
    return _PARENTHESIS.sub(r"\\\g<0>", text)


def replace_underscores(tag: str) -> str:
    """Replace underscores by spaces, except in emoticons.

    `^_^`, `>_<`, `o_o`, `0_0` and `(o)_(o)` are emoticons: each side of the underscore is an eye,
    that is signs only, or a single letter or digit with up to two signs around it.
    """
    text = " ".join(tag.split())
    is_plain = "_" not in text or _FACE.fullmatch(text)
    return text if is_plain else " ".join(text.replace("_", " ").split())


def _groups(tags: Tags) -> dict[TagGroup, list[str]]:
    return {
        "quality": tags.quality,
        "meta": tags.meta,
        "safety": tags.safety,
        "subject": tags.subject,
        "character": tags.character,
        "series": tags.series,
        "artist": tags.artist,
        "general": tags.general,
    }

"""Tags by group, and the prompt that is made of them. Knows neither tokenizers nor HTTP."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from model.card import Prompting, TagGroup
from model.prompt_grammar import MAX_PROMPT_CHARS, check_characters

MAX_TAG_CHARS = 200
MAX_TAGS = 100
"""In one group."""

_ESCAPED = re.compile(r"\\([()])")
_PARENTHESIS = re.compile(r"[()]")
_WEIGHTED = re.compile(r"\(.*:\s*[-+]?[\d.]+\s*\)")
_EYE = r"[^\w\s]{0,2}[^\W_]?[^\w\s]{0,2}"
_FACE = re.compile(rf"(?!_){_EYE}_+{_EYE}(?<!_)")


def _one_tag(text: str) -> str:
    """Refuse what would become several tags, none, or a weight that is not read."""
    for separator, name in ((",", "comma"), ("\n", "line break"), ("\r", "line break")):
        if separator in text:
            raise ValueError(f"a tag holds no {name}; give every tag its own string")
    if not text.replace("_", " ").strip():
        raise ValueError("a tag holds more than spaces")
    if _WEIGHTED.fullmatch(text.strip()):
        raise ValueError("tags are literal; a weight such as (smile:1.2) belongs into prompt")
    return text


Tag = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TAG_CHARS),
    AfterValidator(check_characters),
    AfterValidator(_one_tag),
]
TagList = Annotated[list[Tag], Field(max_length=MAX_TAGS)]


class Tags(BaseModel):
    """Tags by what they say. They are literal: parentheses are letters, `_` is a space."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    quality: TagList = Field(default=[], description="How good it is.", examples=[["masterpiece"]])
    meta: TagList = Field(default=[], description="What kind of file.", examples=[["absurdres"]])
    safety: TagList = Field(default=[], description="For whom it is.", examples=[["safe"]])
    subject: TagList = Field(default=[], description="Who is there.", examples=[["1girl", "solo"]])
    character: TagList = Field(
        default=[], description="Names of characters.", examples=[["hatsune_miku"]]
    )
    series: TagList = Field(default=[], description="Where they are from.", examples=[["vocaloid"]])
    artist: TagList = Field(
        default=[],
        description="Whose style; the card's prefix is put before each that has none.",
        examples=[["wlop"]],
    )
    general: TagList = Field(
        default=[], description="All the rest.", examples=[["long_hair", "smile"]]
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
    """The prompt that is made of tags in the card's order and of `prompt`, which follows."""
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
    """Characters that tags take in a prompt at most, with separators, escapes and prefixes."""
    groups = _groups(tags) if tags else {}
    return sum(len(escape_tag(tag, prefix="@")) + 2 for group in groups.values() for tag in group)


def has_tags(tags: Tags | None) -> bool:
    """Whether there is any tag in any group."""
    return tags is not None and any(_groups(tags).values())


def escape_tag(tag: str, *, prefix: str = "") -> str:
    r"""A tag as it stands in a prompt: one space between words, parentheses escaped once.

    `watercolor_(medium)` and `watercolor \(medium\)` both give `watercolor \(medium\)`; `prefix`
    is put before a tag that has none yet.
    """
    text = replace_underscores(_ESCAPED.sub(r"\1", tag))
    if not text.startswith(prefix):
        text = prefix + text
    return _PARENTHESIS.sub(r"\\\g<0>", text)


def replace_underscores(tag: str) -> str:
    """A tag with spaces for underscores, except where the underscore is the nose of a face.

    `^_^`, `>_<`, `o_o`, `0_0` and `(o)_(o)` are faces: on both sides of the underscore is an eye,
    which is signs, a single letter or digit, or one of those between up to two signs.
    """
    text = " ".join(tag.split())
    return text if _FACE.fullmatch(text) else " ".join(text.replace("_", " ").split())


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

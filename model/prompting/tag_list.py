"""Reads lists of tags: CSV of name, category, count and aliases, as completion extensions use it.

Only name and category are needed. Files for the same extensions leave out the rest, or write a note
in place of the count.
"""

import csv
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from pydantic import TypeAdapter, ValidationError

from model.card import Prompting, TagGroup
from model.errors import TagListError
from model.tags import Tag, replace_underscores

MAX_FILE_BYTES: Final = 64_000_000
_MAX_TAGS: Final = 1_000_000
_MAX_COUNT_DIGITS: Final = 12
_CATEGORY: Final = re.compile(r"-?\d{1,2}")
_CATEGORIES: Final[dict[str, TagGroup]] = {
    "0": "general", "1": "artist", "3": "series", "4": "character", "5": "meta",
}  # fmt: skip
"""Danbooru's numbers; all others count as general."""

SUBJECT_COUNT: Final = re.compile(
    r"\d\+?(?:girl|boy|other)s?|multiple (?:girls|boys|others)|solo(?: focus)?"
)
"""General tags, according to the numbers, that say how many people there are."""

_ESCAPED_PAIR: Final = re.compile(r"\\\(([^()]*)\\\)")
_TAG: Final[TypeAdapter[str]] = TypeAdapter(Tag)


class ListedTag(NamedTuple):
    """A row of a list; `posts` is None if the number is not known."""

    name: str
    group: TagGroup
    posts: int | None = None
    aliases: tuple[str, ...] = ()


def read_tag_list(
    path: Path, own_groups: Mapping[str, TagGroup] | None = None
) -> Iterator[ListedTag]:
    """Read a list of tags, without those that the field `tags` would refuse.

    `own_groups` are the words of the card, which keep their groups.

    Raises:
        TagListError: the file cannot be read, has no tags, or a row is wrong, which is named.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TagListError(f"tag list {path} is not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise TagListError(f"tag list {path}: larger than {MAX_FILE_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _read(path, file, own_groups or {})
    except OSError as exc:
        raise TagListError(f"tag list {path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise TagListError(
            f"tag list {path} is not text in UTF-8 (byte 0x{exc.object[exc.start]:02x}); "
            "save it as UTF-8, uncompressed"
        ) from exc


def card_tags(prompting: Prompting) -> Iterator[ListedTag]:
    """The words of the card with their groups, in its order."""
    groups: list[tuple[TagGroup, tuple[str, ...]]] = [
        ("quality", (*prompting.quality, *prompting.low_quality)),
        ("meta", prompting.meta),
        ("safety", prompting.safety),
        ("subject", prompting.subject),
        ("general", (*prompting.styles, *prompting.media)),
    ]
    for group, words in groups:
        for word in words:
            yield ListedTag(word.replace("\\", "").lower(), group)


def _read(path: Path, file: TextIO, own_groups: Mapping[str, TagGroup]) -> Iterator[ListedTag]:
    rows = csv.reader(file, strict=True, skipinitialspace=True)
    number, is_first, is_empty = 0, True, True
    try:
        for number, row in enumerate(rows, start=1):
            if not any(map(str.strip, row)):
                continue
            if number > _MAX_TAGS:
                raise TagListError(f"tag list {path}: more than {_MAX_TAGS} rows")
            has_category = len(row) > 1 and _CATEGORY.fullmatch(row[1].strip())
            is_heading = is_first and len(row) > 1 and not has_category
            is_first = False
            if is_heading:
                continue
            if not has_category:
                raise TagListError(
                    f"tag list {path}, row {number}: expected name,category,count,aliases "
                    "with a number as the category"
                )
            if (tag := _read_row(row, own_groups)) is not None:
                is_empty = False
                yield tag
    except csv.Error as exc:  # such as a quotation mark that is never closed
        raise TagListError(
            f"tag list {path}, row {number + 1}: {exc}; check its quotation marks"
        ) from exc
    if is_empty:
        raise TagListError(f"tag list {path} has no tags")


def _read_row(row: list[str], own_groups: Mapping[str, TagGroup]) -> ListedTag | None:
    name, category, count, aliases, *_ = [*row, "", ""]
    try:
        name = _plain(_TAG.validate_python(name))
    except ValidationError:
        return None
    group = own_groups.get(name.lower(), _CATEGORIES.get(category.strip(), "general"))
    if group == "general" and SUBJECT_COUNT.fullmatch(name):
        group = "subject"
    names = [alias for alias in map(_plain, aliases.split(",")) if alias]
    if group != "subject":  # other lists have `3girls` as an alias of `female`
        names = [alias for alias in names if not SUBJECT_COUNT.fullmatch(alias)]
    return ListedTag(name, group, _read_count(count), tuple(names))


def _plain(name: str) -> str:
    """A name without underscores and the escapes of a prompt, which some lists have."""
    return replace_underscores(_ESCAPED_PAIR.sub(r"(\1)", name))


def _read_count(text: str) -> int | None:
    """The number of posts, also as spreadsheets write it: `4,114,588` or `800.0`."""
    digits = text.strip().replace(",", "").partition(".")[0]
    return int(digits) if digits.isdecimal() and len(digits) <= _MAX_COUNT_DIGITS else None

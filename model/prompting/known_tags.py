"""Lists of tags with their categories, numbers of posts and aliases: completes and finds tags.

The list is a CSV of name, category, count and aliases, as completion extensions use it. Without
one, the words of the card are the list.
"""

import csv
import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from model.card import Prompting, TagGroup
from model.errors import TagListError
from model.tags import MAX_TAG_CHARS, replace_underscores

MAX_FILE_BYTES: Final = 64_000_000
_MAX_TAGS: Final = 1_000_000
_BLOCK: Final = 512
_CATEGORIES: Final[dict[str, TagGroup]] = {
    "0": "general", "1": "artist", "3": "series", "4": "character", "5": "meta",
}  # fmt: skip
"""Danbooru's numbers; all others count as general."""

_GROUPS: Final[tuple[TagGroup, ...]] = (
    "quality", "meta", "safety", "subject", "character", "series", "artist", "general",
)  # fmt: skip
_EDIT_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789 -"
_LAST: Final = "\U0010ffff"


class KnownTag(NamedTuple):
    """A tag as the field `tags` takes it, or an alias of the tag `alias_of`.

    `posts` is the number of posts with the tag, or None if it is unknown.
    """

    name: str
    group: TagGroup
    posts: int | None
    alias_of: str | None = None


class _Row(NamedTuple):
    name: str
    group: TagGroup
    posts: int
    aliases: list[str]


class KnownTags:
    """Tags that can be found by name or alias, and completed. About 250 bytes for each of them."""

    def __init__(self, rows: Iterable[_Row], *, has_counts: bool) -> None:
        self._has_counts = has_counts
        self._names: list[str] = []
        self._groups = bytearray()
        self._counts = array("L")
        owners: dict[str, int] = {}
        aliases: list[tuple[str, int]] = []
        for row in rows:
            owner = len(self._names)
            name = replace_underscores(row.name)
            if owners.setdefault(_key(name), owner) == owner:
                self._names.append(name)
                self._groups.append(_GROUPS.index(row.group))
                self._counts.append(row.posts)
                aliases += [(_key(replace_underscores(alias)), owner) for alias in row.aliases]
        for alias, owner in aliases:
            owners.setdefault(alias, owner)
        owners.pop("", None)
        self._keys = sorted(owners)
        self._owners = array("L", map(owners.__getitem__, self._keys))
        self._blocks = self._ranked_blocks()

    def _ranked_blocks(self) -> list[Sequence[int]]:
        """Every block of keys, the most frequent tag first."""
        places = range(len(self._keys))
        return [
            array("L", sorted(places[start : start + _BLOCK], key=self._rank))
            for start in places[::_BLOCK]
        ]

    def __len__(self) -> int:
        return len(self._names)

    @property
    def has_counts(self) -> bool:
        """Whether the tags are from a list, not from the card."""
        return self._has_counts

    def complete(self, prefix: str, limit: int) -> list[KnownTag]:
        """The most frequent tags with a name or alias that starts like this, each once."""
        key = _key(replace_underscores(prefix))
        first, end = bisect_left(self._keys, key), bisect_left(self._keys, key + _LAST)
        blocks: list[Iterable[int]] = []
        for number in range(first // _BLOCK, -(-end // _BLOCK)):
            block: Iterable[int] = self._blocks[number]
            if number in (first // _BLOCK, end // _BLOCK):
                block = [place for place in block if first <= place < end]
            blocks.append(block)
        found: dict[int, int] = {}
        for place in heapq.merge(*blocks, key=self._rank):
            owner = self._owners[place]
            if owner not in found or self._is_name(place):
                found[owner] = place
            if len(found) > limit:
                break
        return [self._tag(place) for place in list(found.values())[:limit]]

    def find(self, name: str) -> KnownTag | None:
        """The tag with this name or alias."""
        place = self._place(_key(replace_underscores(name)))
        return None if place is None else self._tag(place)

    def find_near(self, name: str, least: int) -> KnownTag | None:
        """The most frequent tag that differs by one letter and has at least so many posts."""
        key = _key(replace_underscores(name))
        near = {place for edit in _edits(key) if (place := self._place(edit)) is not None}
        best = min(near, key=self._rank, default=None)
        if best is None or self._counts[self._owners[best]] < least:
            return None
        return self._tag(best)

    def _place(self, key: str) -> int | None:
        place = bisect_left(self._keys, key)
        return place if place < len(self._keys) and self._keys[place] == key else None

    def _rank(self, place: int) -> tuple[int, int]:
        owner = self._owners[place]
        return -self._counts[owner], owner

    def _is_name(self, place: int) -> bool:
        return self._keys[place] == _key(self._names[self._owners[place]])

    def _tag(self, place: int) -> KnownTag:
        owner = self._owners[place]
        name, is_name = self._names[owner], self._is_name(place)
        return KnownTag(
            name=name if is_name else self._keys[place],
            group=_GROUPS[self._groups[owner]],
            posts=self._counts[owner] if self._has_counts else None,
            alias_of=None if is_name else name,
        )


def load_known_tags(path: Path | None, prompting: Prompting) -> KnownTags:
    """Read a list of tags and add the words of the card; without a list there are only these.

    Words of the card keep the card's group: `1girl` is a subject.

    Raises:
        TagListError: the file cannot be read or a row is wrong; the message names the row.
    """
    own = _own_groups(prompting)
    own_rows = [_Row(name, group, 0, []) for name, group in own.items()]
    if path is None:
        return KnownTags(own_rows, has_counts=False)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TagListError(f"tag list {path}: larger than {MAX_FILE_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            listed = _read(path, csv.reader(file), own)
            return KnownTags(chain(listed, own_rows), has_counts=True)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise TagListError(f"tag list {path}: {exc}") from exc


def _read(path: Path, rows: Iterator[list[str]], own: dict[str, TagGroup]) -> Iterator[_Row]:
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and len(row) > 2 and not row[2].isdecimal()):
            continue  # a blank line, or the heading
        if number > _MAX_TAGS:
            raise TagListError(f"tag list {path}: more than {_MAX_TAGS} rows")
        if len(row) < 3 or not row[2].isdecimal() or len(row[2]) > 12:
            raise TagListError(
                f"tag list {path}, row {number}: expected name,category,count,aliases"
            )
        name, category, count, *aliases = row
        if len(name) <= MAX_TAG_CHARS:
            group = own.get(_key(replace_underscores(name)), _CATEGORIES.get(category, "general"))
            yield _Row(name, group, int(count), aliases[0].split(",") if aliases else [])


def _own_groups(prompting: Prompting) -> dict[str, TagGroup]:
    """The words of the card, in its order, with their groups."""
    groups: list[tuple[TagGroup, tuple[str, ...]]] = [
        ("quality", (*prompting.quality, *prompting.low_quality)),
        ("meta", prompting.meta),
        ("safety", prompting.safety),
        ("subject", prompting.subject),
        ("general", (*prompting.styles, *prompting.media)),
    ]
    return {name.replace("\\", "").lower(): group for group, names in groups for name in names}


def _key(name: str) -> str:
    return name.strip().lower()


def _edits(key: str) -> Iterator[str]:
    """Every text that differs by a letter: missing, added, replaced or swapped."""
    for at in range(len(key) + 1):
        before, after = key[:at], key[at:]
        if after:
            yield before + after[1:]
            yield from (before + letter + after[1:] for letter in _EDIT_LETTERS)
        if len(after) > 1:
            yield before + after[1] + after[0] + after[2:]
        yield from (before + letter + after for letter in _EDIT_LETTERS)

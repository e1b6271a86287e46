"""Known tags, from a list or the card: completes them and finds them by name or alias."""

import heapq
import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from model.card import Prompting, TagGroup
from model.prompting.slips import likely_meant
from model.prompting.tag_list import ListedTag, card_tags, read_tag_list
from model.tags import replace_underscores

_BLOCK: Final = 512
_FEW: Final = 50
_UNKNOWN: Final = -1
_FREQUENT: Final = 300
"""Tags of unknown frequency are chosen by hand, such as the words of the card. They come after so
many tags: a prefix of two or three letters finds them, and common tags are found before."""

_GROUPS: Final[tuple[TagGroup, ...]] = (
    "quality", "meta", "safety", "subject", "character", "series", "artist", "general",
)  # fmt: skip
_LAST: Final = "\U0010ffff"
_ESCAPED: Final = re.compile(r"\\([()])")
_WORD_END: Final = re.compile(r"[^\s_][\s_]+$")


class KnownTag(NamedTuple):
    """A tag as the field `tags` takes it, or an alias of the tag `alias_of`.

    `posts` is the number of posts with the tag, or None if it is unknown.
    """

    name: str
    group: TagGroup
    posts: int | None
    alias_of: str | None = None


class _Ranking:
    """Places of names, in the order of the names; finds the best of those that start alike."""

    def __init__(self, keys: Sequence[str], places: Sequence[int], ranks: Sequence[int]) -> None:
        self._keys, self._places, self._ranks = keys, places, ranks
        self._blocks = [
            array("I", sorted(places[start : start + _BLOCK], key=ranks.__getitem__))
            for start in range(0, len(places), _BLOCK)
        ]

    def starting_with(self, prefix: str) -> Iterator[int]:
        """The places of names that start like this, the best first."""
        first = bisect_left(self._places, prefix, key=self._keys.__getitem__)
        end = bisect_left(self._places, prefix + _LAST, key=self._keys.__getitem__)
        if first == end:
            return iter(())
        least, most = self._places[first], self._places[end - 1]
        blocks: list[Iterable[int]] = []
        for number in range(first // _BLOCK, (end - 1) // _BLOCK + 1):
            block: Iterable[int] = self._blocks[number]
            if number in (first // _BLOCK, (end - 1) // _BLOCK):
                block = [place for place in block if least <= place <= most]
            blocks.append(block)
        return heapq.merge(*blocks, key=self._ranks.__getitem__)


class KnownTags:
    """Tags that can be found by name or alias, and completed. About 250 bytes for each of them.

    Case, underscores and Unicode's compatibility forms do not matter. `artist_prefix` may stand
    before the name of an artist.
    """

    def __init__(
        self, tags: Iterable[ListedTag], *, has_counts: bool, artist_prefix: str = ""
    ) -> None:
        self._has_counts = has_counts
        self._artist_prefix = artist_prefix
        self._names: list[str] = []
        self._groups = bytearray()
        self._counts = array("q")
        owners: dict[str, int] = {}
        aliases: list[str] = []
        alias_owners = array("I")
        for tag in tags:
            owner = len(self._names)
            if owners.setdefault(_key(tag.name), owner) == owner:
                self._names.append(tag.name)
                self._groups.append(_GROUPS.index(tag.group))
                self._counts.append(_UNKNOWN if tag.posts is None else tag.posts)
                aliases += map(_key, tag.aliases)
                alias_owners.extend([owner] * len(tag.aliases))
        for alias, owner in zip(aliases, alias_owners, strict=True):
            owners.setdefault(alias, owner)
        del aliases, alias_owners
        self._keys = sorted(owners)
        self._owners = array("I", map(owners.__getitem__, self._keys))
        del owners
        self._ranks = self._rank()
        self._all = _Ranking(self._keys, range(len(self._keys)), self._ranks)
        artist = _GROUPS.index("artist")
        artists = (at for at, owner in enumerate(self._owners) if self._groups[owner] == artist)
        self._artists = _Ranking(self._keys, array("I", artists), self._ranks)

    def _rank(self) -> "array[int]":
        """The rank of every name by the number of posts; an alias has that of its tag."""
        by_count = sorted(range(len(self._names)), key=lambda owner: -self._counts[owner])
        counted = len(by_count) - self._counts.count(_UNKNOWN)
        by_count[min(_FREQUENT, counted) :] = by_count[counted:] + by_count[_FREQUENT:counted]
        ranks = array("I", bytes(4 * len(by_count)))
        for rank, owner in enumerate(by_count):
            ranks[owner] = rank
        return array("I", map(ranks.__getitem__, self._owners))

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    @property
    def has_counts(self) -> bool:
        """Whether the tags are from a list, not from the card."""
        return self._has_counts

    def complete(self, prefix: str, limit: int) -> list[KnownTag]:
        """The most frequent tags with a name or alias that starts like this, each once.

        The prefix may have the escapes of a prompt. After the artist prefix, these are artists.
        """
        raw = prefix.lstrip()
        text = _ESCAPED.sub(r"\1", raw)
        exact = self._place(_key(text))
        ranges: list[Iterable[int]] = [() if exact is None else (exact,)]
        ranges += map(self._all.starting_with, _starts(text) | _starts(raw))
        if self._artist_prefix and text.startswith(self._artist_prefix):
            name = text.removeprefix(self._artist_prefix)
            ranges += map(self._artists.starting_with, _starts(name))
        found: dict[int, int] = {}
        for place in heapq.merge(*ranges, key=self._ranks.__getitem__):
            owner = self._owners[place]
            if owner not in found or self._is_name(place):
                found[owner] = place
            if len(found) > limit:
                break
        return [self._tag(place) for place in list(found.values())[:limit]]

    def find(self, name: str) -> KnownTag | None:
        """The tag with this name or alias, or the artist after the artist prefix."""
        place = self._place(_key(name))
        if place is not None:
            return self._tag(place)
        if self._artist_prefix and name.startswith(self._artist_prefix):
            place = self._place(_key(name.removeprefix(self._artist_prefix)))
            artist = None if place is None else self._tag(place)
            return artist if artist and artist.group == "artist" else None
        return None

    def find_near(self, name: str, least: int) -> KnownTag | None:
        """The most frequent tag that was probably meant and has at least so many posts.

        Names of artists are not: they are too many, and like any word.
        """
        edits = likely_meant(_key(name), self._is_word, self._is_start)
        places = {place for edit in edits if (place := self._place(edit)) is not None}
        for place in sorted(places, key=self._ranks.__getitem__):
            tag = self._tag(place)
            if tag.group != "artist":
                return tag if tag.posts is None or tag.posts >= least else None
        return None

    def begins_tags(self, word: str) -> bool:
        """Whether several general tags begin with this word, as `pine tree` and `pine cone` do."""
        tags = self.complete(f"{word} ", _FEW)
        return sum(tag.group == "general" and "(" not in tag.name for tag in tags) > 1

    def _is_word(self, word: str) -> bool:
        """Whether a name is this word, or starts with it."""
        return self._place(word) is not None or self._is_start(f"{word} ")

    def _is_start(self, text: str) -> bool:
        place = bisect_left(self._keys, text)
        return place < len(self._keys) and self._keys[place].startswith(text)

    def _place(self, key: str) -> int | None:
        place = bisect_left(self._keys, key)
        return place if place < len(self._keys) and self._keys[place] == key else None

    def _is_name(self, place: int) -> bool:
        return self._keys[place] == _key(self._names[self._owners[place]])

    def _tag(self, place: int) -> KnownTag:
        owner = self._owners[place]
        name, is_name, posts = self._names[owner], self._is_name(place), self._counts[owner]
        return KnownTag(
            name=name if is_name else self._keys[place],
            group=_GROUPS[self._groups[owner]],
            posts=None if posts == _UNKNOWN else posts,
            alias_of=None if is_name else name,
        )


def load_known_tags(path: Path | None, prompting: Prompting) -> KnownTags:
    """Read a list of tags and add the words of the card; without a list there are only these.

    Words of the card keep the card's group: `1girl` is a subject.

    Raises:
        TagListError: the file cannot be read or a row is wrong; the message names the row.
    """
    own = list(card_tags(prompting))
    listed = read_tag_list(path, {tag.name: tag.group for tag in own}) if path else ()
    return KnownTags(
        chain(listed, own), has_counts=path is not None, artist_prefix=prompting.artist_prefix
    )


def _key(name: str) -> str:
    """What names are compared by."""
    text = name if name.isascii() else unicodedata.normalize("NFKC", name)
    return replace_underscores(text).lower()


def _starts(text: str) -> set[str]:
    """What the keys of names start with that start with this text; all start with a blank one.

    A blank at the end ends a word, and an underscore may also be part of an emoticon.
    """
    words = _key(text) + " " * bool(_WORD_END.search(text))
    literal = text.strip().lower() if "_" in text else ""
    return {words, literal} - {""} if text.strip() else {""}

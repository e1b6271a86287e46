"""Warnings that need a list of known tags: aliases, misspelt tags, artists, and their order."""

from collections.abc import Iterator, Sequence

from model.card import Card
from model.prompting.known_tags import KnownTag, KnownTags
from model.prompting.syntax import shorten
from model.request import WarningCode
from model.tags import escape_tag

_MANY = 5
_MAX_GUESSES = 10
"""Number of unknown tags for which similar ones are looked up; each takes some time."""

_MIN_GUESS_LETTERS = 5
_MAX_GUESS_CHARS = 40
_MIN_GUESS_POSTS = 500
_COLOURS = (
    "aqua", "black", "blonde", "blue", "brown", "gold", "green", "grey", "orange", "pink", "purple",
    "red", "silver", "white", "yellow", "multicolored", "striped", "plaid",
)  # fmt: skip
"""First words of tags whose colour or pattern spreads when a prompt is short."""


def find_aliases(tags: Sequence[str], known: KnownTags) -> Iterator[tuple[WarningCode, str]]:
    """Tags that are aliases, and unknown tags that differ from a known one by one letter."""
    aliases, guesses, tried = [], [], 0
    for tag in tags:
        found = known.find(_bare(tag))
        if found is not None:
            if found.alias_of:
                aliases.append(f"{_written(found.alias_of)} for {shorten(tag)}")
        elif tried < _MAX_GUESSES and _may_be_misspelt(tag):
            tried += 1
            near = known.find_near(_bare(tag), _MIN_GUESS_POSTS)
            if near is not None:
                guesses.append(f"{_written(near.alias_of or near.name)} for {shorten(tag)}")
    advice = []
    if aliases:
        advice.append(f"aliases: write {', '.join(aliases[:_MANY])}")
    if guesses:
        advice.append(f"similar to tags of the list: {', '.join(guesses[:_MANY])}")
    if advice:
        yield "unknown_tag", "; ".join(advice)


def find_artist(
    tags: Sequence[str], card: Card, known: KnownTags
) -> Iterator[tuple[WarningCode, str]]:
    """The first artist without the card's prefix."""
    prefix = card.prompting.artist_prefix
    for tag in tags:
        found = known.find(tag) if prefix and not tag.startswith(prefix) else None
        if found is not None and found.group == "artist":
            name = escape_tag(found.alias_of or found.name, prefix=prefix)
            yield "artist_prefix", f"{shorten(tag)!r} is an artist; write {name}"
            return


def find_disorder(
    tags: Sequence[str], card: Card, known: KnownTags
) -> Iterator[tuple[WarningCode, str]]:
    """A character, series or artist after tags that the card has later."""
    order = card.prompting.tag_order
    last: tuple[int, str] = (-1, "")
    for tag in tags:
        found = known.find(_bare(tag))
        if found is None or found.group not in order:
            continue
        place = order.index(found.group)
        if place < last[0] and _is_name(found):
            yield (
                "tag_order",
                f"{shorten(tag)!r}, a tag of the group {found.group}, comes after "
                f"{shorten(last[1])!r}; the trained order is "
                + " ".join(f"[{name}]" for name in order),
            )
            return
        if place > last[0]:
            last = place, tag


def find_bleeding(tags: Sequence[str], known: KnownTags) -> list[str]:
    """General tags with a colour or pattern, which spreads when a prompt is short."""
    coloured = [tag for tag in tags if tag.partition(" ")[0] in _COLOURS and " " in tag]
    found = [tag for tag in coloured if (hit := known.find(tag)) and hit.group == "general"]
    return [shorten(tag) for tag in found[:_MANY]]


def _is_name(tag: KnownTag) -> bool:
    return tag.group in ("character", "series", "artist")


def _may_be_misspelt(tag: str) -> bool:
    return (
        tag.isascii()
        and len(tag) <= _MAX_GUESS_CHARS
        and sum(map(str.isalpha, tag)) >= _MIN_GUESS_LETTERS
    )


def _bare(tag: str) -> str:
    return tag.removeprefix("@")


def _written(name: str) -> str:
    return escape_tag(name)

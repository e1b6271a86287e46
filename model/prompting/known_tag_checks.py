"""Warnings that need a list of known tags: aliases, misspelt tags, artists, and their order.

They are about the parts of a prompt that are in no sentence.
"""

import re
from collections.abc import Iterator, Sequence

from model.card import Card
from model.prompting.known_tags import KnownTag, KnownTags
from model.prompting.syntax import shorten
from model.request import WarningCode
from model.tags import escape_tag, replace_underscores

_MANY = 5
_MAX_GUESSES = 10
"""Number of unknown tags for which similar ones are looked up; each takes some time."""

_MIN_GUESS_POSTS = 500
_COLOURED = re.compile(
    r"(?:light |dark )?(?:aqua|black|blonde?|blue|brown|gold|golden|green|gr[ae]y|orange|pink"
    r"|purple|red|silver|white|yellow|rainbow|two-tone|multicolored|gradient|striped|plaid|checkered"
    r"|polka dot) (?!and )(?!.*(?:background|theme|border|outline|sky|juice|tea)$)(?![^(]*\()"
)
"""Tags of a colour or pattern of something that people have or wear."""

_IN_STYLE = re.compile(r"(?:by|(?:in the )?style of) (?P<after>.+)|(?P<before>.+?)(?:'s)? style")


def find_aliases(
    tags: Sequence[str], card: Card, known: KnownTags
) -> Iterator[tuple[WarningCode, str]]:
    """Tags that are aliases, and unknown tags that differ from a known one by one letter.

    Tells neither if the prompt has the meant tag as well.
    """
    prefix = card.prompting.artist_prefix
    aliases, guesses, tried = [], [], 0
    for tag in tags:
        found = known.find(tag)
        if found is not None:
            # Artists without their prefix are told by `find_artists`.
            is_told = found.group == "artist" and not tag.startswith(prefix)
            is_meant = not is_told and not _is_word(found, known)
            if found.alias_of and is_meant and found.alias_of not in tags:
                aliases.append(f"{_written(found, prefix)} for {shorten(tag)}")
        elif tried < _MAX_GUESSES:
            tried += 1
            near = known.find_near(tag, _MIN_GUESS_POSTS)
            if near is not None and (near.alias_of or near.name) not in tags:
                guesses.append(f"{shorten(tag)} (similar: {_written(near, prefix)})")
    advice = []
    if aliases:
        advice.append(f"aliases: write {', '.join(aliases[:_MANY])}")
    if guesses:
        advice.append(f"not in the list of tags: {', '.join(guesses[:_MANY])}")
    if advice:
        yield "unknown_tag", "; ".join(advice)


def find_artists(
    tags: Sequence[str], card: Card, known: KnownTags
) -> Iterator[tuple[WarningCode, str]]:
    """Artists without the card's prefix. Some are meant as words: `luminous` is an artist too."""
    prefix = card.prompting.artist_prefix
    artists = {}
    for tag in tags if prefix else ():
        match = _IN_STYLE.fullmatch(tag)
        name = (match["after"] or match["before"]) if match and tag not in known else tag
        found = None if name.startswith(prefix) else known.find(name)
        if found and found.group == "artist" and not _is_word(found, known):
            artists[name] = _written(found, prefix)
    if artists:
        names = ", ".join(repr(shorten(name)) for name in list(artists)[:_MANY])
        kind = "is an artist" if len(artists) == 1 else "are artists"
        written = ", ".join(list(artists.values())[:_MANY])
        yield "artist_prefix", f"{names} {kind} in the list of tags; if meant, write {written}"


def find_disorder(
    tags: Sequence[str], card: Card, known: KnownTags
) -> Iterator[tuple[WarningCode, str]]:
    """A character, series or artist after tags that the card has later."""
    order = card.prompting.tag_order
    last: tuple[int, str] = (-1, "")
    later = 0
    for tag in tags:
        found = known.find(tag)
        if found is None or found.group not in order:
            continue
        place = order.index(found.group)
        if place < last[0] and _is_name(found, tag, card.prompting.artist_prefix):
            # In `texas, arknights` the first is the name of a character, whatever the list says.
            if found.group == "series" and later == 1 and order[last[0]] == "general":
                continue
            yield (
                "tag_order",
                f"{shorten(tag)!r}, a tag of the group {found.group}, comes after "
                f"{shorten(last[1])!r}; the trained order is "
                + " ".join(f"[{name}]" for name in order),
            )
            return
        if place > last[0]:
            last, later = (place, tag), 0
        later += place == last[0]


def find_bleeding(tags: Sequence[str], known: KnownTags) -> list[str]:
    """General tags with a colour or pattern, which spreads when a prompt is short."""
    coloured = [tag for tag in map(replace_underscores, tags) if _COLOURED.match(tag)]
    found = [tag for tag in coloured if (hit := known.find(tag)) and hit.group == "general"]
    return [shorten(tag) for tag in found[:_MANY]]


def _is_name(found: KnownTag, tag: str, prefix: str) -> bool:
    """Whether this is a name, rather than a word that is an alias or the name of an artist too."""
    if found.group == "artist":
        return tag.startswith(prefix)
    return found.group in ("character", "series") and found.alias_of is None


def _is_word(found: KnownTag, known: KnownTags) -> bool:
    """Whether this is a word that is an alias of an artist or a series as well.

    Such as `love`, which begins many tags, and `clamp` of `clamp (circle)`.
    """
    if found.alias_of is None or found.group not in ("artist", "series") or " " in found.name:
        return False
    is_ambiguous = found.group == "artist" and found.alias_of.startswith(f"{found.name} (")
    return is_ambiguous or known.begins_tags(found.name)


def _written(tag: KnownTag, prefix: str) -> str:
    """The tag, or that of which it is an alias, as a prompt has it."""
    return escape_tag(tag.alias_of or tag.name, prefix=prefix if tag.group == "artist" else "")

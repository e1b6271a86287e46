"""Cleans prompts and parses their grammar, that of ComfyUI: weights in brackets and escapes."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from model.errors import PromptError

MAX_PROMPT_CHARS: Final = 10_000
MAX_WEIGHT = 10.0
MAX_NESTING = 20
_BRACKET_WEIGHT = 1.1

_ATOM = re.compile(r"\\[()]|[^\\():]+|.", re.DOTALL)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control codes except tab and line ends, and halves of surrogate pairs."""

_LINE_END = re.compile("\r\n?|[\u2028\u2029]")
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
)
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\U0001bca0-\U0001bca3"
    f"\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff{_NONCHARACTERS}]"
)
"""Characters without a shape: Unicode's `Default_Ignorable_Code_Point`, noncharacters, and the
blanks of Braille and of notes, which are not spaces."""

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_VIRAMA = 9  # the combining class of the signs that remove a vowel
_MONGOLIAN_MARKS = frozenset("\u180b\u180c\u180d\u180e\u180f")
_HANGUL_FILLERS = {"\u115f": ("\u1161", "\u11a7"), "\u1160": ("\u11a8", "\u11ff")}
"""Stand for a missing part of a syllable, if one of these parts follows."""

_BRAILLE_BLANK = "\u2800"
_EMOJI_ENDS = ("\ufe0f", "\U000e007f")
_KEYCAPS = frozenset("#*0123456789")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")
_JOINED_SCRIPT = re.compile(
    "[\u0600-\u061b\u061d-\u109f\u1700-\u180a\u1810-\u18af\u1900-\u1cff"
    "\ua800-\ua95f\ua980-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
"""Scripts whose letters change their shape next to a joiner: from Arabic to Myanmar, and others."""

_MAX_DROPPED_SHOWN = 5


class Segment(NamedTuple):
    """A piece of a prompt with one weight, without brackets and the backslashes of escapes."""

    text: str
    weight: float


def check_characters(text: str) -> str:
    """Return the text if tokenizers, logs and image files can hold it.

    Raises:
        ValueError: it contains a lone surrogate or a control code.
    """
    if found := _FORBIDDEN.search(text):
        raise ValueError(
            f"character U+{ord(found[0]):04X} at position {found.start()} is not allowed; "
            "use ordinary text"
        )
    return text


class CleanText(NamedTuple):
    """A text without invisible characters; `dropped` describes each kind that was left out."""

    text: str
    dropped: tuple[str, ...]


@lru_cache(maxsize=16)  # validation and the warning clean the same text
def clean_prompt(text: str) -> CleanText:
    r"""Drop what nobody sees in a prompt but tokenizers read, so that equal prompts are equal.

    Drops invisible characters as `drop_invisible` does, blanks around the prompt and at the ends of
    its lines, and writes every line end as `\n`.
    """
    visible, dropped = drop_invisible(text)
    lines = _LINE_END.sub("\n", visible)
    if lines != visible:
        dropped = (*dropped, r"line ends other than \n (written as \n)")
    clean = "\n".join(line.rstrip() for line in lines.split("\n")).strip()
    if clean and clean != lines:
        dropped = (*dropped, "blanks around the text or its lines")
    return CleanText(clean, dropped)


def drop_invisible(text: str) -> CleanText:
    """Drop zero-width marks, byte order marks and the like.

    Keeps those that change how a visible character looks: joiners and variation selectors in emoji
    and in scripts that use them, and the tags of flags.
    """
    if text.isascii():
        return CleanText(text, ())
    in_flags = {place for flag in _FLAG.finditer(text) for place in range(*flag.span())}
    kept: list[str] = []
    dropped: Counter[str] = Counter()
    end, before = 0, ""
    for match in _INVISIBLE.finditer(text):
        place, char = match.start(), match[0]
        if place > end:
            kept.append(text[end:place])
            before = text[place - 1]
        end = match.end()
        if place in in_flags or _has_effect(char, before, text[end : end + 1]):
            kept.append(char)
            before = char
        else:
            dropped[char] += 1
    described = [_described(char, count) for char, count in dropped.most_common()]
    more = len(described) - _MAX_DROPPED_SHOWN
    if more > 0:
        described[_MAX_DROPPED_SHOWN:] = [f"{more} more kinds of invisible characters"]
    return CleanText("".join([*kept, text[end:]]), tuple(described))


def _described(char: str, count: int) -> str:
    name = "byte order mark" if char == "\ufeff" else unicodedata.name(char, "").lower()
    return f"{f'{count} times ' if count > 1 else ''}U+{ord(char):04X} {name}".strip()


def _has_effect(char: str, before: str, after: str) -> bool:
    """Whether an invisible character changes how its neighbours look; "" is no neighbour."""
    if char == _ZWJ:
        if _joins(before) or _joins(after):
            return True
        return _is_emoji(after) and (_is_emoji(before) or before in _EMOJI_ENDS)
    if char == _ZWNJ:
        is_virama = before != "" and unicodedata.combining(before) == _VIRAMA
        return _joins(before) and (is_virama or _joins(after))
    if char in _HANGUL_FILLERS:
        first, last = _HANGUL_FILLERS[char]
        return first <= after <= last
    if char == _BRAILLE_BLANK:
        return _is_braille(before) or (_is_braille(after) and after != _BRAILLE_BLANK)
    if char in _MONGOLIAN_MARKS:
        return "\u1820" <= before <= "\u18aa"
    if "\ufe00" <= char <= "\ufe0f":
        is_keycap = before in _KEYCAPS and after == "\u20e3"
        return is_keycap or _takes_variation(before)
    if "\U000e0100" <= char <= "\U000e01ef":
        return _takes_variation(before)
    return char == "\u034f" and after != "" and unicodedata.combining(after) > 0


def _is_braille(char: str) -> bool:
    return "\u2800" <= char <= "\u28ff"


def _joins(char: str) -> bool:
    """Whether this is a letter or sign whose shape a joiner changes."""
    return _JOINED_SCRIPT.match(char) is not None and unicodedata.category(char)[0] in "LM"


def _is_emoji(char: str) -> bool:
    return char != "" and (
        "\U0001f000" <= char <= "\U0001faff"
        or char in "\u2194\u2195"
        or unicodedata.category(char) == "So"
    )


def _takes_variation(char: str) -> bool:
    """Whether a variation selector after this character may have an effect."""
    return char > "\x7f" and not char.isspace() and _INVISIBLE.match(char) is None


def plain_text(text: str) -> str:
    """The text that the tokenizers see, without brackets, weights and escapes."""
    return "".join(segment.text for segment in parse_prompt(text))


@lru_cache(maxsize=16)  # validation, lint and token count parse the same text one after the other
def parse_prompt(text: str) -> tuple[Segment, ...]:
    r"""Split a prompt into segments of one weight each.

    `(x)` multiplies the weight by 1.1, `(x:1.3)` sets it, `\(` and `\)` are literal brackets. A
    bracket that is not closed is text, but the prompt is split there.

    Raises:
        PromptError: a weight is not a number from -10 to 10, or brackets nest deeper than 20.
    """
    atoms = _ATOM.findall(text)
    return tuple(
        Segment("".join(map(_letters, part)), weight)
        for part, weight in _weighted(atoms, weight=1.0, position=0)
    )


def _letters(atom: str) -> str:
    """An atom as text: an escaped bracket loses its backslash."""
    return atom[1] if atom in (r"\(", r"\)") else atom


def _weighted(
    atoms: Sequence[str], *, weight: float, position: int
) -> Iterator[tuple[Sequence[str], float]]:
    """Yield runs of atoms with their weights; `position` is the offset of `atoms` in the prompt."""
    for group in _groups(atoms, position):
        if len(group) >= 2 and group[0] == "(" and group[-1] == ")":
            inner, explicit = _split_weight(group[1:-1])
            inner_weight = weight * _BRACKET_WEIGHT if explicit is None else explicit
            if not (math.isfinite(inner_weight) and abs(inner_weight) <= MAX_WEIGHT):
                raise PromptError(
                    f"weight {inner_weight:g} of the bracket at position {position} is not a "
                    f"number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}",
                    limit=MAX_WEIGHT,
                )
            yield from _weighted(inner, weight=inner_weight, position=position + 1)
        else:
            yield group, weight
        position += sum(map(len, group))


def _groups(atoms: Sequence[str], position: int) -> Iterator[Sequence[str]]:
    """Split at the outermost brackets: "a (b) c" -> "a ", "(b)", " c"."""
    start = depth = 0
    for index, atom in enumerate(atoms):
        if atom == "(":
            if depth == 0 and index > start:
                yield atoms[start:index]
                start = index
            depth += 1
            if depth > MAX_NESTING:
                raise PromptError(
                    f"brackets nest deeper than {MAX_NESTING} at position "
                    f"{position + sum(map(len, atoms[:index]))}",
                    limit=MAX_NESTING,
                )
        elif atom == ")":
            depth -= 1
            if depth == 0:
                yield atoms[start : index + 1]
                start = index + 1
    if start < len(atoms):
        yield atoms[start:]


def _split_weight(atoms: Sequence[str]) -> tuple[Sequence[str], float | None]:
    """Split "red hair:1.3" into its text and its weight; None if there is no weight."""
    colon = max((index for index, atom in enumerate(atoms) if atom == ":"), default=0)
    number = "".join(atoms[colon + 1 :])
    if colon == 0 or "_" in number:  # Python reads 1_0 as 10
        return atoms, None
    try:
        return atoms[:colon], float(number)
    except ValueError:
        return atoms, None

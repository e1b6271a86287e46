"""Folds a text to plain letters: case, width, accents, invisible characters and look-alikes.

The look-alikes are those of UTS 39. Every step takes linear time.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from operator import itemgetter
from typing import Protocol, TypeVar

from anyascii import anyascii

Key = TypeVar("Key", contravariant=True)
Value = TypeVar("Value", covariant=True)


class _Table(Protocol[Key, Value]):
    def __getitem__(self, key: Key, /) -> Value: ...


COMMA = re.compile(r"[,;、]")
"""What is between tags."""

BARRIER = "\x1f"
"""Stands for a number where digits are read as letters: a number alone is not a word."""

_WHOLE_WORDS = re.compile("[\u00bc-\u00be\u2150-\u215f\u2189\u3300-\u33ff\u321d\u321e\ufdfa\ufdfb]")
"""Characters that stand for words or fractions: written out they would multiply a text.

A half behind a number would be read with it: 17\u00bd as 171.
"""

_MAX_NUMBER = 9999
_LETTERS = ("LATIN ", "COMBINING LATIN ", "GREEK ", "CYRILLIC ", "REGIONAL ")
_DRAWN_LETTERS = ("SQUARED LATIN ", "CIRCLED LATIN ")
"""What the names of letters begin with or have, of which there may be plain ones."""

_IDEOGRAPHS = range(0x3400, 0xA000)
"""Most of the many characters that a text may have."""

_HIRAGANA = range(0x3041, 0x3097)
_TO_KATAKANA = 0x60
_FROM_KANA_ON = 0x3040
_BLANK = "\u115f\u1160\u3164\uffa0\u2800"
"""Unicode letters and a sign that are blank."""

_APOSTROPHES = "\u2018\u2019\u02bc\u2032"
_ANY_COMMA = re.compile(r"[,;、，；\n]")
_MIN_SMALL_LETTERS = 3
"""Of a part of a text that is also read in lower case."""

_CONTRACTED = re.compile(r"['`](?<=\w.)(?=\w)")

_STYLED = (
    ("₳฿₵₣₲₭₥₦₱₴₮₩", "abcfgkmnpstw"),
    ("ꮧᏸꮄꮛꭶꮆꮰꮭꮑꭷꭾꭴꮦꮼꮙꮗ", "abdefgjlnopqtuvw"),
    ("ɮֆղյշժբծրեմճվ", "bsnbcdfortuxy"),
    ("ᗩᑕᗴᘜᑎᑫᔕᗯᘔ", "acegnqswz"),
    ("ꍏꌃꉓꀸꍟꎇꁅꃅꀤꀭꀘ꒒ꂵꈤꂦꉣꆰꋪꌗ꓄ꀎ꒦ꅏꊼꌩꁴ", "abcdefghijklmnopqrstuvwxyz"),
    ("ꪖᥴᦔꫀᠻᧁꫝꪶꪑꪀꪮꪊꪜꪗ", "acdefghlmnouvy"),
    ("ⲁⲃⲇⲉⳋⲏⲓⳗⲕⳑⲙⲛϥⲋⲧⳙⳳⳍⲭⲩⲍ", "abdeghijklmnqstuvwxyz"),
    ("∂℘ҝӄҡԃԋþβ", "dpkkkdhpb"),
)
"""Letters of scripts for which there are no terms, as generators of fancy text write Latin ones."""

_ALSO_ALIKE = {
    "χ": "x", "ω": "w", "η": "n", "μ": "u", "п": "n", "П": "n", "и": "u", "н": "h", "в": "b",
    "т": "t", "м": "m", "я": "r", "И": "u", "Я": "r", "Г": "r", "ь": "b", "ц": "u", "Ц": "u",
    "ш": "w", "Ш": "w", "є": "e", "Є": "e", "§": "s", "¡": "i",
    "≤": "<", "≦": "<", "⩽": "<", "≲": "<",
    **{char: letter for pair in _STYLED for char, letter in zip(*pair, strict=True)},
}  # fmt: skip
"""Substitutes that are missing in UTS 39 because they look different."""

_EMOJI = {"👶": "婴", "🧒": "童", "👧": "囡", "👦": "囝"}
"""Emoji that count as words, as one letter each: a longer word would multiply a text."""

_MASKS = frozenset("○●◯〇◎■□▪▫◼◻◾◽▇█▓▒░⬛⬜★☆✱✳✖✕✗✘❌♥♡❤•∗※×†‡⁎⁑⁂¤¿¶")
"""Symbols that cover a letter; they are read as `*`."""

_SYMBOLS = ("So", "Sm")
"""Categories of all other symbols: arrows, shapes, emoji. They cover a letter, too."""


@cache
def _confusables() -> dict[str, str]:
    """The single characters that look like a character, by UTS 39.

    The package's own module reads more tables, and keeps them all in memory.
    """
    path = resources.files("confusable_homoglyphs") / "confusables.json"
    found = json.loads(path.read_text("utf-8"))
    return {
        char: "".join(str(one["c"]) for one in alike if len(one["c"]) == 1)
        for char, alike in found.items()
    }


class _Characters(dict[str, str]):
    """What characters are read as, filled on first use of each."""

    def __missing__(self, char: str) -> str:
        if (
            ord(char) in _IDEOGRAPHS
            and unicodedata.category(char) == "Lo"
            and (char not in _confusables())
        ):
            read = char  # what would be found out below, in a fifth of the time
        elif _WHOLE_WORDS.match(char):
            read = "*"
        elif ord(char) in _SYLLABLES:
            read = _open_syllable(char)
        else:
            read = "".join(map(_read, unicodedata.normalize("NFKD", char)))
        self[char] = read
        return read


def _read(char: str) -> str:
    if char.isascii():
        return char.lower()
    if char in _APOSTROPHES:
        return "'"
    if char in _MASKS:
        return "*"
    if char in _EMOJI:
        return _EMOJI[char]
    category = unicodedata.category(char)
    name = unicodedata.name(char, "")
    if category in ("Mn", "Me") and not name.startswith("COMBINING LATIN SMALL LETTER"):
        return ""
    if category in ("Cf", "Sk", "Cc", "Co", "Cn") or char in _BLANK:
        return ""
    if category in ("Nd", "No") and unicodedata.numeric(char, 0.5).is_integer():
        # Also of a white number in a black circle.
        return f"{min(unicodedata.numeric(char), _MAX_NUMBER):.0f}"
    return _look_alike(char, name, category)


def _look_alike(char: str, name: str, category: str) -> str:
    """The letters that a character looks like; the character itself if there are none."""
    alike = _confusables().get(char, "")
    for one in alike:
        if one.isascii() and one.isalnum():
            return one.lower()
    if char in _ALSO_ALIKE:
        return _ALSO_ALIKE[char]
    if name.startswith(_LETTERS) or any(map(name.__contains__, _DRAWN_LETTERS)):
        letters = anyascii(char).lower()
        if letters.isalpha():
            return letters
    if category in _SYMBOLS:
        return "*"
    code = ord(char)
    if code in _HIRAGANA:
        return chr(code + _TO_KATAKANA)
    if category[0] == "Z":
        return " "
    if code >= _FROM_KANA_ON:
        return min(one for one in char + alike if ord(one) >= _FROM_KANA_ON)
    small = char.lower()
    return small if small == char else "".join(map(_read, small))


_CHARACTERS = _Characters()

_INITIAL_SHARP_S = re.compile(r"[ßẞ](?<![^\W_].)")
"""No word begins with it, so there it stands for a B."""

_PARTS_OF_SYLLABLES = re.compile(
    "[\u1100-\u11ff\u3131-\u318e\u3200-\u321e\u3260-\u327e\uffa0-\uffdc]"
)
"""Korean consonants and vowels, and signs that are spelled out in them."""

_GAP_IN_SYLLABLE = re.compile(r"[\W_](?<=[\u1100-\u1112].)(?=[\u1161-\u1175])")
"""A sign between a consonant and a vowel: both alone are no Korean."""

_SYLLABLES = range(0xAC00, 0xD7A4)
_FINALS = 28
"""Syllables that differ in their last consonant only, one of them without any."""


_SYLLABLE = re.compile("[\uac00-\ud7a3]")


def _open_syllable(syllable: str) -> str:
    """A Korean syllable without its last consonant, and this.

    An ending adds such a consonant to a word: so the word stays its beginning. All three parts of
    a syllable would be more letters than needed.
    """
    final = (ord(syllable) - _SYLLABLES.start) % _FINALS
    return chr(ord(syllable) - final) + (_first(0x11A7 + final) if final else "")


def _first(final: int) -> str:
    """The first consonant of a syllable that is written like this last one, if it is one alone."""
    name = unicodedata.name(chr(final)).replace("JONGSEONG", "CHOSEONG")
    return chr(final) if "-" in name else unicodedata.lookup(name)


class _LooksOtherIfSmall(dict[str, bool]):
    """Whether a character in lower case looks like another letter; filled on first use."""

    def __missing__(self, char: str) -> bool:
        small = char.lower()
        is_sigma = char == "\u03a3"  # its lower case depends on its place in a word
        self[char] = differs = is_sigma or (
            small != char and not _is_alike(fold(char), fold(small))
        )
        return differs


_LOOKS_OTHER_IF_SMALL = _LooksOtherIfSmall()


def looked_up(keys: Sequence[Key], table: _Table[Key, Value]) -> Sequence[Value]:
    """The values of some keys in a table: several times as fast as one by one."""
    if len(keys) < 2:
        return [table[key] for key in keys]
    values: tuple[Value, ...] = itemgetter(*keys)(table)
    return values


def fold(text: str) -> str:
    """The text in plain lower-case letters, as far as possible."""
    if text.isascii():
        plain = text.lower().replace(BARRIER, "")
    else:
        if "\u00df" in text or "\u1e9e" in text:
            text = _INITIAL_SHARP_S.sub("b", _WHOLE_WORDS.sub("*", text))
        has_parts = _PARTS_OF_SYLLABLES.search(text)
        if has_parts:
            text = unicodedata.normalize("NFKD", _WHOLE_WORDS.sub("*", text))
        plain = "".join(looked_up(text, _CHARACTERS))
        if has_parts:
            plain = unicodedata.normalize("NFC", _GAP_IN_SYLLABLE.sub("", plain))
            plain = _SYLLABLE.sub(lambda found: _CHARACTERS[found[0]], plain)
    return _CONTRACTED.sub("", plain)  # the t in "isn't" is not a word


def fold_prompt(text: str) -> str:
    """The folded text, and behind it parts in lower case that have other letters then.

    A capital eta looks like an H, a small eta like an n. No term goes from one of these parts to
    the next. They are tags, and words of longer parts, and only so many that they do not multiply
    a text: all of a short one.
    """
    plain = fold(text)
    capitals = {char for char in set(text) if _LOOKS_OTHER_IF_SMALL[char]}
    if not capitals:
        return plain
    small, left = {f"{plain},": None}, 100 + len(text) // 20
    for part in _ANY_COMMA.split(text):
        for piece in (part,) if len(part) <= left else part.split():
            if _MIN_SMALL_LETTERS <= len(piece) <= left and not capitals.isdisjoint(piece):
                folded = fold(piece.lower())
                left -= 0 if folded in small else len(piece)
                small[folded] = None
    return BARRIER.join(small)


def in_all_cases(term: str) -> Iterator[str]:
    """A term, and folded ones for its capitals if these look other than its small letters."""
    yield term
    if not term.isascii() and term.lower() != term.upper():
        folded = {fold(term.upper()), fold(term.title())}
        plain = fold(term.lower())
        yield from sorted(one for one in folded if not _is_alike(one, plain))


def _is_alike(one: str, other: str) -> bool:
    """Whether two folded texts are the same to who takes an l for an i."""
    return one.replace("l", "i") == other.replace("l", "i")

"""Functions that change the spelling of a word but leave it readable.

Tests apply them to the terms of the policy.
"""

import unicodedata
from collections.abc import Callable

Evasion = Callable[[str], str]


def _each(change: Callable[[str], str]) -> Evasion:
    """Change every ASCII letter on its own."""
    return lambda text: "".join(
        change(char) if char.isascii() and char.isalpha() else char for char in text
    )


def _letters_from(first_small: int) -> Evasion:
    """Replace letters by those of a Unicode block in alphabetical order."""
    return _each(lambda char: chr(first_small + ord(char.lower()) - ord("a")))


def _look_alikes(pairs: str) -> Evasion:
    """Replace letters by look-alikes; `pairs` has each letter and its look-alike in turn."""
    look_alikes = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return _each(lambda char: look_alikes.get(char.lower(), char))


def _between(separator: str) -> Evasion:
    """Insert a text between the letters of every word."""
    return lambda text: " ".join(separator.join(word) for word in text.split(" "))


def _after_each(mark: str) -> Evasion:
    return _each(lambda char: char + mark)


def _small_capitals(char: str) -> str:
    name = f"LATIN LETTER SMALL CAPITAL {char.upper()}"
    try:
        return unicodedata.lookup(name)
    except KeyError:
        return char


def _split(text: str) -> str:
    """Split every word in two with a space."""
    return " ".join(
        f"{word[: len(word) // 2]} {word[len(word) // 2 :]}" for word in text.split(" ")
    )


def _weighted(text: str) -> str:
    half = len(text) // 2
    return f"({text[:half]}:1.3)({text[half:]}:0.7)"


def _masked(text: str) -> str:
    """Replace an inner letter of a single word by a star."""
    return text if " " in text else f"{text[:1]}*{text[2:]}"


EVASIONS: dict[str, Evasion] = {
    "as it is": lambda text: text,
    "capitals": str.upper,
    "title": str.title,
    "mixed case": lambda text: "".join(
        char.upper() if place % 2 else char for place, char in enumerate(text)
    ),
    "full width": _letters_from(0xFF41),
    "bold": _letters_from(0x1D41A),
    "script": _letters_from(0x1D4EA),
    "fraktur": _letters_from(0x1D586),
    "monospace": _letters_from(0x1D68A),
    "circled": _letters_from(0x24D0),
    "parenthesized": _letters_from(0x249C),
    "negative circled": _letters_from(0x1F150),
    "negative squared": _letters_from(0x1F170),
    "regional indicators": _letters_from(0x1F1E6),
    "small capitals": _each(_small_capitals),
    "cyrillic": _look_alikes("aаcсeеiіjјoоpрsѕxхyуnпhн"),
    "greek": _look_alikes("aαoοvνiιxχwωnη"),
    "armenian": _look_alikes("oօuսhհnո"),
    "cherokee": _look_alikes("aᎪcᏟdᎠeᎬ"),
    "accents": _after_each("\u0301"),
    "tildes and dots": _after_each("\u0330\u0307"),
    "heaps of marks": _after_each("\u0302\u0327\u0336\u030a\u0323"),
    "strokes": _look_alikes("oødđlłhħtŧ"),
    "zero-width spaces": _between("\u200b"),
    "zero-width joiners": _between("\u200d"),
    "soft hyphens": _between("\u00ad"),
    "word joiners": _between("\u2060"),
    "variation selectors": _after_each("\ufe0f"),
    "direction marks": _between("\u202e"),
    "invisible letters": _between("\u3164"),
    "spaces": _between(" "),
    "wide spaces": _between("\u3000"),
    "dots": _between("."),
    "middle dots": _between("·"),
    "dashes": _between("-"),
    "underscores": _between("_"),
    "slashes": _between("/"),
    "bars": _between("\\"),
    "stars": _between("*"),
    "colons": _between(":"),
    "apostrophes": _between("'"),
    "commas": _between(","),
    "commas and spaces": _between(", "),
    "lines": _between("\n"),
    "emoji": _between("✨"),
    "underscored words": lambda text: text.replace(" ", "_"),
    "no spaces": lambda text: text.replace(" ", ""),
    "two spaces": lambda text: text.replace(" ", "  "),
    "split words": _split,
    "brackets": lambda text: f"(({text}))",
    "weight": lambda text: f"({text}:1.3)",
    "little weight": lambda text: f"({text}:0.05)",
    "negative weight": lambda text: f"({text}:-1.2)",
    "two weights": _weighted,
    "weighted letters": _each(lambda char: f"({char}:1.1)"),
    "escaped brackets": lambda text: rf"\({text}\)",
    "open bracket": lambda text: f"({text}",
    "square brackets": lambda text: f"[{text}]",
    "bracketed letters": _each(lambda char: f"[{char}]"),
    "curly brackets": lambda text: f"{{{text}}}",
    "angle brackets": lambda text: f"<{text}>",
    "quotes": lambda text: f'"{text}"',
    "hash": lambda text: f"#{text.replace(' ', '')}",
    "at": lambda text: f"@{text}",
    "exclaimed": lambda text: f"{text}!!!",
    "digits for letters": _look_alikes("o0i1e3a4s5t7"),
    "signs for letters": _look_alikes("a@i!s$"),
    "one for l": _look_alikes("l1"),
    "i for l": _look_alikes("lI"),
    "l for i": _look_alikes("il"),
    "masked": _masked,
    "stretched": lambda text: text[:2] + text[1] * 4 + text[2:],
    "plural": lambda text: f"{text}s",
    "numbered": lambda text: f"{text}2",
    "after a number": lambda text: f"2{text}",
    "not": lambda text: f"not {text}",
    "without": lambda text: f"without any {text} at all",
    "claimed adult": lambda text: f"{text} who is an adult of 25 years",
}

TWICE = [
    ("full width", "zero-width spaces"),
    ("capitals", "dots"),
    ("cyrillic", "accents"),
    ("digits for letters", "underscores"),
    ("digits for letters", "brackets"),
    ("stretched", "capitals"),
    ("small capitals", "spaces"),
    ("signs for letters", "weight"),
    ("split words", "zero-width joiners"),
    ("bold", "two weights"),
    ("masked", "square brackets"),
    ("numbered", "digits for letters"),
]
"""Pairs of evasions to apply one after the other."""

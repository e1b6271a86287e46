"""Ways to write a word so that people and text encoders still read it; each takes and gives text.

They are applied to the policy's own terms, so that no test has to spell anything out.
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
    """Letters of another block of Unicode, which has them in the order of the alphabet."""
    return _each(lambda char: chr(first_small + ord(char.lower()) - ord("a")))


def _alike(pairs: str) -> Evasion:
    """Look-alikes of some letters: `pairs` is a letter and its twin, and so on."""
    twins = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return _each(lambda char: twins.get(char.lower(), char))


def _between(what: str) -> Evasion:
    """Something between the letters of every word; words stay apart."""
    return lambda text: " ".join(what.join(word) for word in text.split(" "))


def _after_each(what: str) -> Evasion:
    return _each(lambda char: char + what)


def _small_capitals(char: str) -> str:
    name = f"LATIN LETTER SMALL CAPITAL {char.upper()}"
    try:
        return unicodedata.lookup(name)
    except KeyError:
        return char


def _split(text: str) -> str:
    """Every word in two, with a space."""
    return " ".join(
        f"{word[: len(word) // 2]} {word[len(word) // 2 :]}" for word in text.split(" ")
    )


def _weighted(text: str) -> str:
    half = len(text) // 2
    return f"({text[:half]}:1.3)({text[half:]}:0.7)"


def _masked(text: str) -> str:
    """A star for an inner letter, in a word by itself."""
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
    "cyrillic": _alike("aаcсeеiіjјoоpрsѕxхyуnпhн"),
    "greek": _alike("aαoοvνiιxχwωnη"),
    "armenian": _alike("oօuսhհnո"),
    "cherokee": _alike("aᎪcᏟdᎠeᎬ"),
    "accents": _after_each("\u0301"),
    "tildes and dots": _after_each("\u0330\u0307"),
    "heaps of marks": _after_each("\u0302\u0327\u0336\u030a\u0323"),
    "strokes": _alike("oødđlłhħtŧ"),
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
    "digits for letters": _alike("o0i1e3a4s5t7"),
    "signs for letters": _alike("a@i!s$"),
    "one for l": _alike("l1"),
    "i for l": _alike("lI"),
    "l for i": _alike("il"),
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
"""Pairs to be applied one after the other."""

"""The ways to write a term of the policy, as letters without gaps."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from model.errors import PolicyError
from model.policy.folding import fold
from model.policy.normalize import fold_tokens, squeeze_runs

ELLIPSIS = " ... "
_MAX_TERM_CHARS = 100
_MIN_WORD_LETTERS = 3
"""Minimum letters of a word that may be glued to others, masked or in the plural."""

_MIN_HOLED_LETTERS = 4
"""Minimum letters of a word of which a dash or dot may cover one: `s_x` may be anything."""

_MIN_LONG_MASK_LETTERS = 4
"""Minimum letters of a word of which several may be masked: `f**k`."""

_VOWELS = (str.maketrans("aeou", "****"), str.maketrans("aeiou", "*****"))
"""Masks for all vowels of a word; an `i` may be an `l`."""

_SYLLABLE = re.compile("[^\u1100-\u11ff][\u1100-\u11ff]?|.")
"""A letter; folding writes a Korean syllable as two if it ends with a consonant."""

_MIN_PHRASE_WORDS = 3
_PLURAL_ENDINGS = dict.fromkeys("sxzh", ("es", "ez"))


class Pattern(NamedTuple):
    """The bounds of one way to write a term, or a part of it, as letters without gaps.

    `words` is their number, `letters` the least number of letters. `first_run` and `last_run` are
    the least lengths of the runs of one letter at both ends; `long_runs` are the places and least
    lengths of all runs that must be longer than 1. `is_open_before` and `is_open_after` mean that
    a word may continue there; `starts_tag` and `ends_tag` that a tag must start or end there.
    `hole` is the place of the letter that a dash or dot covers, or 0. `is_only_glued` means that it
    is no word alone.
    """

    words: int
    letters: int
    first_run: int
    last_run: int
    is_open_before: bool
    is_open_after: bool
    starts_tag: bool
    ends_tag: bool
    has_digits: bool
    is_glued: bool
    needs_no_spaces: bool
    hole: int
    is_only_glued: bool
    long_runs: tuple[tuple[int, int], ...]


class TermPart(NamedTuple):
    """What is between the three dots of a term: its words, and what must be around them.

    `needs_no_spaces` is whether the script of its first letter writes words without spaces.
    """

    tokens: tuple[str, ...]
    is_open_before: bool
    is_open_after: bool
    starts_tag: bool
    ends_tag: bool
    is_glued: bool
    needs_no_spaces: bool
    is_only_glued: bool

    def spellings(self) -> Iterator[tuple[str, Pattern]]:
        """Every way to write it: the squeezed letters, and their bounds."""
        has_digits = not all(map(str.isalpha, self.tokens))
        for letters, is_open, hole in self._written():
            squeezed, runs = squeeze_runs(letters)
            long_runs: tuple[tuple[int, int], ...] = ()
            if len(runs) < len(letters):
                long_runs = tuple((at, least) for at, least in enumerate(runs) if least > 1)
            yield (
                squeezed,
                Pattern(
                    len(self.tokens),
                    len(letters),
                    runs[0],
                    runs[-1],
                    is_open and self.is_open_before,
                    is_open and self.is_open_after,
                    self.starts_tag,
                    self.ends_tag,
                    has_digits,
                    self.is_glued and not hole,
                    self.needs_no_spaces,
                    hole,
                    self.is_only_glued,
                    long_runs,
                ),
            )

    def _written(self) -> Iterator[tuple[str, bool, int]]:
        """The letters of every spelling, whether its word may go on, and the place of a hole."""
        letters = "".join(self.tokens)
        yield letters, True, 0
        for written in _masked(self):
            if written != letters:
                yield written, True, 0
        for written in _plurals(self):
            yield written, False, 0
        for hole in _holes(self):
            yield letters[:hole] + letters[hole + 1 :], False, hole


def parts_of(term: str) -> list[TermPart]:
    """The parts of a term between three dots.

    Raises:
        PolicyError: the term could not match anything.
    """
    starts_tag, ends_tag = term.startswith("="), term.endswith("=") or term.startswith("=")
    is_only_glued = term.startswith("+")
    stripped = term.strip("=+").strip()
    if len(stripped) > _MAX_TERM_CHARS:
        raise PolicyError(f"the term {term[:20]!r}… is longer than {_MAX_TERM_CHARS} characters")
    written = stripped.split(ELLIPSIS)
    parts = []
    for words in written:
        tokens = _tokens(term, words)
        needs_no_spaces = _needs_no_spaces(tokens[0])
        before = words.startswith("*") or (not starts_tag and needs_no_spaces)
        after = words.endswith("*") or (not ends_tag and _needs_no_spaces(tokens[-1][-1]))
        is_alone = len(written) == 1 and not (needs_no_spaces or ends_tag)
        is_glued = is_alone and _is_word(tokens)
        if is_only_glued and not is_glued:
            raise PolicyError(f"the term {term!r} is no word of at least three letters")
        bounds = (before, after, starts_tag, ends_tag)
        parts.append(TermPart(tokens, *bounds, is_glued, needs_no_spaces, is_only_glued))
    return parts


def _tokens(term: str, words: str) -> tuple[str, ...]:
    bare = words.strip("* ")
    if "*" in bare or "..." in bare:
        raise PolicyError(
            f"the term {term!r} has a * or dots in the wrong place: a * belongs at the "
            "start or end of a word, three dots between spaces"
        )
    tokens = tuple(fold_tokens(fold(bare.lower())))
    letters = "".join(tokens)
    if len(letters) < 2 and not (letters and _needs_no_spaces(letters)):
        raise PolicyError(f"the term {term!r} needs at least two letters")
    return tokens


def _needs_no_spaces(word: str) -> bool:
    """Whether the script of the first letter writes words without spaces."""
    return not word[0].isascii() and unicodedata.category(word[0]) in ("Lo", "Lm")


def _is_word(tokens: Sequence[str]) -> bool:
    return len(tokens) == 1 and len(tokens[0]) >= _MIN_WORD_LETTERS and tokens[0].isalpha()


def _plurals(part: TermPart) -> Iterator[str]:
    """The word or words with a plural ending; of a phrase, most of them ages, the usual ones.

    What ends with an s needs no second one, because the last letter may be stretched.
    """
    tokens = part.tokens
    if part.needs_no_spaces or not tokens[-1].isalpha() or len(tokens[-1]) < _MIN_WORD_LETTERS:
        return
    letters = "".join(tokens)
    if letters[-1] != "s":
        yield from (letters + ending for ending in "sz")
    if len(tokens) < _MIN_PHRASE_WORDS:
        yield from (letters + ending for ending in _PLURAL_ENDINGS.get(letters[-1], ()))
        if letters[-1] == "y":
            yield letters[:-1] + "ies"


def _masked(part: TermPart) -> Iterator[str]:
    """The word with stars in place of inner letters: of one, of some in a row, of all vowels."""
    word = part.tokens[0]
    if part.ends_tag or not word.isalpha() or len(part.tokens) > 1:
        return
    if _needs_no_spaces(word):
        syllables = _SYLLABLE.findall(word)
        for at in range(1, len(syllables) - 1):
            yield "".join([*syllables[:at], "*", *syllables[at + 1 :]])
    elif _is_word(part.tokens) and not part.is_open_before:
        longest = len(word) - 2 if len(word) >= _MIN_LONG_MASK_LETTERS else 1
        for length in range(1, longest + 1):
            for at in range(1, len(word) - length):
                yield word[:at] + "*" * length + word[at + length :]
        for vowels in _VOWELS:
            yield word[0] + word[1:-1].translate(vowels) + word[-1]


def _holes(part: TermPart) -> Iterator[int]:
    """The places of inner letters that a dash or dot may cover."""
    word = part.tokens[0]
    is_long = _is_word(part.tokens) and len(word) >= _MIN_HOLED_LETTERS
    if is_long and not part.ends_tag and not part.needs_no_spaces:
        yield from range(1, len(word) - 1)

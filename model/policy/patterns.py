"""The ways to write a term of the policy, as letters without gaps, and where a text has them."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from model.errors import PolicyError
from model.policy.folding import fold
from model.policy.normalize import TAG_ENDS, Gap, NormalizedText, fold_tokens, squeeze_runs

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

_MIN_SPLIT_STEM_LETTERS = 7
"""Minimum letters of a stem that is found although its word is split and goes on."""

_MIN_PHRASE_WORDS = 3
_PLURAL_ENDINGS = dict.fromkeys("sxzh", ("es", "ez"))


class Pattern(NamedTuple):
    """The bounds of one way to write a term, or a part of it, as letters without gaps.

    `words` is their number, `letters` the least number of letters. `first_run` and `last_run` are
    the least lengths of the runs of one letter at both ends; `long_runs` are the places and least
    lengths of all runs that must be longer than 1. `is_open_before` and `is_open_after` mean that
    a word may continue there; `starts_tag` and `ends_tag` that a tag must start or end there.
    `is_only_glued` means that it is no word alone.
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
        for letters, is_open in self._written():
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
                    self.is_glued,
                    self.needs_no_spaces,
                    self.is_only_glued,
                    long_runs,
                ),
            )

    def _written(self) -> Iterator[tuple[str, bool]]:
        """The letters of every spelling, and whether its word may go on."""
        letters = "".join(self.tokens)
        yield letters, True
        for written in _masked(self):
            if written != letters:
                yield written, True
        for written in _plurals(self):
            yield written, False
        if self._has_plural():
            for written in _with_stars(f"{letters}s", longest=1):
                yield written, False

    def holed(self) -> Iterator[tuple[str, str]]:
        """The letters before and after each inner one that a dash or dot may cover.

        Also of the plural, whose last inner one is the last of the word.
        """
        word = self.tokens[0]
        is_long = _is_word(self.tokens) and len(word) >= _MIN_HOLED_LETTERS
        if is_long and not (self.ends_tag or self.needs_no_spaces or self.is_only_glued):
            for written in (word, f"{word}s") if self._has_plural() else (word,):
                for hole in range(1, len(written) - 1):
                    yield written[:hole], written[hole + 1 :]

    def _has_plural(self) -> bool:
        """Whether it is one word whose plural is masked like itself."""
        may_be_masked = not (self.ends_tag or self.needs_no_spaces or self.is_open_before)
        return may_be_masked and _is_word(self.tokens) and self.tokens[0][-1] != "s"


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
        yield from _with_stars(word, longest)


def _with_stars(word: str, longest: int) -> Iterator[str]:
    """The word with up to so many stars in a row in place of inner letters, or of all vowels."""
    for length in range(1, longest + 1):
        for at in range(1, len(word) - length):
            yield word[:at] + "*" * length + word[at + length :]
    for vowels in _VOWELS:
        yield word[0] + word[1:-1].translate(vowels) + word[-1]


# -- matches in a text ---------------------------------------------------------------------------


def tokens_of(
    text: NormalizedText, begin: int, end: int, pattern: Pattern
) -> tuple[int, int] | None:
    """The first and last token of a match, the fewest possible; None if it is not whole words."""
    places, starts, ends = text.places, text.starts, text.ends
    at, stop = places[begin], places[end]
    for place, least in pattern.long_runs:
        if places[begin + place + 1] - places[begin + place] < least:
            return None
    first_end, last_start = (
        places[begin + 1] - pattern.first_run,
        places[end - 1] + pattern.last_run,
    )
    is_one_run = end == begin + 1
    if pattern.is_open_before:
        at = at if is_one_run else first_end
        first = bisect_right(starts, at) - 1
    else:
        first = bisect_right(starts, first_end) - 1
        if first < 0 or starts[first] < at:
            return None
        at = starts[first]
    if pattern.is_open_after:
        stop = at + pattern.letters if is_one_run else last_start
        last = bisect_left(ends, stop)
    else:
        last = bisect_left(ends, max(last_start, at + pattern.letters))
        if last == len(ends) or ends[last] > stop:
            return None
        stop = ends[last]
    if at > first_end or stop < last_start or stop - at < pattern.letters:
        return None
    if not _reads_as_term(text, pattern, at, stop, first, last):
        return None
    return first, last


def _reads_as_term(
    text: NormalizedText, pattern: Pattern, begin: int, end: int, first: int, last: int
) -> bool:
    """Whether these tokens, with the gaps between them, form this term."""
    if not pattern.has_digits and not any(map(str.isalpha, text.raw[begin:end])):
        return False  # a number is not a word
    gaps = text.gaps
    if pattern.starts_tag and gaps[first] not in TAG_ENDS:
        return False
    if pattern.ends_tag and gaps[last + 1] not in TAG_ENDS:
        return False
    if first == last:
        return True
    tokens = range(first, last + 1)
    if text.ends[last] - text.starts[first] == len(tokens):
        return True  # spelled out, with anything between the letters
    if len(tokens) != pattern.words and not _may_be_split(text, pattern, begin, end, tokens):
        return False
    inner = gaps[first + 1 : last + 1]
    if max(inner) >= Gap.NUMBER:
        return False
    return pattern.has_digits or not _has_number(text, first, inner)


def _may_be_split(
    text: NormalizedText, pattern: Pattern, begin: int, end: int, tokens: range
) -> bool:
    """Whether these tokens may be a term with words that were split.

    "an all" is not "anal", because a word is either split or stretched, and "who reads" is not
    "whore*", because a short stem would be in many words.
    """
    is_part = text.starts[tokens[0]] < begin or end < text.ends[tokens[-1]]
    if is_part:
        return pattern.needs_no_spaces or pattern.letters >= _MIN_SPLIT_STEM_LETTERS
    return end - begin == pattern.letters


def _has_number(text: NormalizedText, first: int, gaps: Sequence[int]) -> bool:
    """Whether a token from `first` on is a number that touches no other token."""
    if text.raw[text.starts[first] : text.ends[first + len(gaps)]].isalpha():
        return False
    for token, sides in enumerate(pairwise([Gap.TAG, *gaps, Gap.TAG]), start=first):
        if Gap.NONE not in sides and is_number(text.tokens[token]):
            return True
    return False


def is_number(token: str) -> bool:
    """Whether a token has no letters."""
    return not token.isalpha() and not any(map(str.isalpha, token))

"""The ways to write a term of the policy, as letters without gaps."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from model.errors import PolicyError
from model.policy.normalize import fold, fold_tokens, squeeze_runs

ELLIPSIS = " ... "
_MAX_TERM_CHARS = 100
_MIN_WORD_LETTERS = 3
"""Minimum letters of a word that may be glued to others, masked or in the plural."""

_MIN_HOLED_LETTERS = 4
"""Minimum letters of a word of which a dash or dot may cover one: `s_x` may be anything."""

_MIN_LONG_MASK_LETTERS = 4
"""Minimum letters of a word of which several may be masked: `f**k`."""

_PLURAL_ENDINGS = dict.fromkeys("sxzh", ("es", "ez"))


class Pattern(NamedTuple):
    """The bounds of one way to write a term, or a part of it, as letters without gaps.

    `words` is their number, `runs` are the minimum lengths of its runs of one letter, `letters`
    is the sum of these, and `is_plain` means that each is 1.
    `is_open_before` and `is_open_after` mean that a word may continue there. `hole` is the place
    of the letter that a dash or dot covers, or 0.
    """

    words: int
    runs: tuple[int, ...]
    letters: int
    is_plain: bool
    is_open_before: bool
    is_open_after: bool
    is_tag: bool
    has_digits: bool
    is_glued: bool
    needs_no_spaces: bool
    hole: int = 0


def patterns(term: str) -> Iterator[tuple[int, str, Pattern]]:
    """Every way to write the parts of a term: the part, its squeezed letters, and their bounds.

    Raises:
        PolicyError: the term could not match anything.
    """
    stripped = term.removeprefix("=").strip()
    if len(stripped) > _MAX_TERM_CHARS:
        raise PolicyError(f"the term {term[:20]!r}… is longer than {_MAX_TERM_CHARS} characters")
    parts = stripped.split(ELLIPSIS)
    for part, words in enumerate(parts):
        tokens = _tokens(term, words)
        letters = "".join(tokens)
        base = Pattern(
            words=len(tokens),
            runs=(),
            letters=0,
            is_plain=True,
            is_open_before=_needs_no_spaces(letters[:1]) or words.startswith("*"),
            is_open_after=_needs_no_spaces(letters[-1:]) or words.endswith("*"),
            is_tag=term.startswith("="),
            has_digits=not letters.isalpha(),
            is_glued=False,
            needs_no_spaces=_needs_no_spaces(letters[:1]),
        )
        is_whole = not (base.is_open_before or base.is_open_after)
        is_alone = len(parts) == 1 and is_whole and not base.is_tag
        base = base._replace(is_glued=is_alone and _is_word(tokens))
        for written in {letters, *_masked(tokens, base)}:
            yield part, *_squeezed(written, base)
        whole = base._replace(is_open_before=False, is_open_after=False)
        for written in _plurals(tokens, base):
            yield part, *_squeezed(written, whole)
        for place in _holes(tokens, base):
            holed = whole._replace(hole=place, is_glued=False)
            yield part, *_squeezed(letters[:place] + letters[place + 1 :], holed)


def _tokens(term: str, words: str) -> list[str]:
    bare = words.strip("* ")
    if "*" in bare or "..." in bare:
        raise PolicyError(
            f"the term {term!r} has a * or dots in the wrong place: a * belongs at the "
            "start or end of a word, three dots between spaces"
        )
    tokens = fold_tokens(fold(bare.lower()))
    letters = "".join(tokens)
    if len(letters) < 2 and not _needs_no_spaces(letters):
        raise PolicyError(f"the term {term!r} needs at least two letters")
    return tokens


def _squeezed(letters: str, base: Pattern) -> tuple[str, Pattern]:
    squeezed, runs = squeeze_runs(letters)
    return squeezed, base._replace(runs=runs, letters=len(letters), is_plain=max(runs) == 1)


def _needs_no_spaces(letter: str) -> bool:
    """Whether the script of a letter writes words without spaces."""
    return len(letter) > 0 and unicodedata.category(letter[0]) == "Lo"


def _is_word(tokens: Sequence[str]) -> bool:
    return len(tokens) == 1 and len(tokens[0]) >= _MIN_WORD_LETTERS and tokens[0].isalpha()


def _plurals(tokens: Sequence[str], base: Pattern) -> Iterator[str]:
    if not base.needs_no_spaces and tokens[-1].isalpha() and len(tokens[-1]) >= _MIN_WORD_LETTERS:
        letters = "".join(tokens)
        yield from (
            letters + ending for ending in ("s", "z", *_PLURAL_ENDINGS.get(letters[-1], ()))
        )
        if letters[-1] == "y":
            yield letters[:-1] + "ies"


def _masked(tokens: Sequence[str], base: Pattern) -> Iterator[str]:
    """The word with stars in place of inner letters, of one or of some in a row."""
    if base.is_tag or not tokens[0].isalpha() or len(tokens) > 1:
        return
    word = tokens[0]
    if _needs_no_spaces(word):
        yield from (f"{word[:at]}*{word[at + 1 :]}" for at in range(1, len(word) - 1))
    elif _is_word(tokens) and not base.is_open_before:
        longest = len(word) - 2 if len(word) >= _MIN_LONG_MASK_LETTERS else 1
        for length in range(1, longest + 1):
            for at in range(1, len(word) - length):
                yield word[:at] + "*" * length + word[at + length :]


def _holes(tokens: Sequence[str], base: Pattern) -> Iterator[int]:
    """The places of inner letters that a dash or dot may cover."""
    is_long = _is_word(tokens) and len(tokens[0]) >= _MIN_HOLED_LETTERS
    if is_long and not base.is_tag and not _needs_no_spaces(tokens[0]):
        yield from range(1, len(tokens[0]) - 1)

"""Ages and school years in languages other than English: the phrases of `policies/ages.toml`."""

import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from itertools import product
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ADULT = 18
LEAST_LIMIT = 10
"""The lowest age for which "under" alone means an age."""

_NONE = "~"


def _words(text: str) -> list[str]:
    """The words of a line; a `-` is a gap in a word."""
    return [word.replace("-", " ") for word in text.split()]


_Words = Annotated[list[str], BeforeValidator(_words)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Language(_Table):
    """Numbers and phrases for ages; the file says what each kind of phrase is for."""

    name: str
    numbers: Annotated[_Words, Field(min_length=ADULT + 1, max_length=ADULT + 1)]
    ages: list[str] = []
    words: list[str] = []
    teens: list[str] = []
    digits: list[str] = []
    under: list[str] = []
    under_18: list[str] = []
    times: list[str] = []

    def ages_below(self, limit: int) -> Iterator[str]:
        """Every age below a limit."""
        for age in range(limit):
            yield from filled([*self.ages, *self.digits], f"{age}")
            if (word := self.numbers[age]) != _NONE:
                yield from filled([*self.ages, *self.words], word)
                if age >= LEAST_LIMIT:
                    yield from filled(self.teens, word)

    def limits(self, limit: int) -> Iterator[str]:
        """That somebody is under an age, for every age up to a limit."""
        for age in range(min(LEAST_LIMIT, limit), limit + 1):
            phrases = [*self.under, *(self.under_18 if age == ADULT else ())]
            yield from filled(phrases, f"{age}", self.numbers[age])

    def harmless(self) -> Iterator[str]:
        """Times that are no ages."""
        for age in range(1, ADULT):
            yield from filled(self.times, f"{age}")
        for word in self.numbers[1 : LEAST_LIMIT + 1]:
            yield from filled(self.times, word)


class _School(_Table):
    """The classes of schools for children, from the first to the last."""

    language: str
    first: int
    last: int
    digits: list[str] = []
    words: _Words = []
    in_words: list[str] = []

    def classes(self) -> Iterator[str]:
        yield from filled(self.digits, *map(str, range(self.first, self.last + 1)))
        yield from filled(self.in_words, *self.words)


class _Above(_Table):
    """Ages whose words end like a lower one."""

    phrases: list[str]
    tens: _Words
    ones: _Words


class _File(_Table):
    languages: list[_Language]
    schools: list[_School]
    above: list[_Above]


@cache
def _read() -> _File:
    text = (resources.files("model") / "policies" / "ages.toml").read_text("utf-8")
    return _File.model_validate(tomllib.loads(text))


def filled(phrases: Iterable[str], *numbers: str) -> Iterator[str]:
    """Each phrase with each number, except those that stand for none."""
    return (phrase.format(number) for number in numbers if number != _NONE for phrase in phrases)


def ages_in_other_languages(limit: int) -> Iterator[str]:
    """Every age below a limit, and "under" the limit and lower ages."""
    for language in _read().languages:
        yield from language.ages_below(limit)
        yield from language.limits(limit)


def classes_in_other_languages() -> Iterator[str]:
    """The classes of schools for children."""
    for school in _read().schools:
        yield from school.classes()


def harmless_in_other_languages() -> Iterator[str]:
    """Ages above 20 whose words end like a lower one, and times: "hace cinco años"."""
    for language in _read().languages:
        yield from language.harmless()
    for above in _read().above:
        for phrase, tens, ones in product(above.phrases, above.tens, above.ones):
            yield phrase.format(tens, ones)

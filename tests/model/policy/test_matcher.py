"""Terms are found as whole words, also split, glued, stretched or masked, but not within words."""

import pytest

from model.errors import PolicyError
from model.policy.matcher import TermMatcher

TERMS = ["apple", "red pear", "plum*", "*berry", "=fig", "old ... tree", "boot", "12 pears", "林檎"]
MATCHER = TermMatcher(TERMS, fillers=["cake"])


def found(text: str) -> set[str]:
    return {TERMS[hit.term] for hits in MATCHER.find(text) for hit in hits}


def test_terms_are_found() -> None:
    cases: dict[str, set[str]] = {
        "an apple a day": {"apple"},
        "pineapple, applet": set(),
        "apples, apple's": {"apple"},
        "app le": {"apple"},
        "app, le": set(),
        "a, p, p, l, e": {"apple"},
        "ap-p.l_e": {"apple"},
        "aple": set(),
        "aappplee": {"apple"},
        "a*ple": {"apple"},
        "4pp13": {"apple"},
        "apple, 3": {"apple"},
        "a, apple, e": {"apple"},
        "boot, t": {"boot"},
        "b, boot t": {"boot"},
        "a appleboot t": {"apple", "boot"},
        "red pear": {"red pear"},
        "red_pears": {"red pear"},
        "redpear": {"red pear"},
        "red, pear": set(),
        "plum, plums, plumage": {"plum*"},
        "a plu mage": {"plum*"},
        "strawberry": {"*berry"},
        "berry": {"*berry"},
        "fig": {"=fig"},
        "a, fig\nb": {"=fig"},
        "a fig, b": set(),
        "old tree": {"old ... tree"},
        "old, very big tree": {"old ... tree"},
        "old and very big tree": set(),
        "tree old": set(),
        "appleboot": {"apple", "boot"},
        "applecake": {"apple"},
        "bootapplecakes": {"apple", "boot"},
        "bootapplex": set(),
        "12 pears": {"12 pears"},
        "112 pears": set(),
        "12pears": {"12 pears"},
        "l2 pears": {"12 pears"},
        "bot": set(),
        "b oo t": {"boot"},
        "8007": set(),
        "b 007": set(),
        "赤い林檎です": {"林檎"},
        "": set(),
        "...": set(),
    }
    wrong = {text: found(text) for text, terms in cases.items() if found(text) != terms}
    assert wrong == {}


def test_glued_words_may_share_a_stretched_letter() -> None:
    matcher = TermMatcher(["teen", "nude"])
    assert {hit.term for hits in matcher.find("teennude") for hit in hits} == {0, 1}
    assert {hit.term for hits in matcher.find("teenude") for hit in hits} == set()


def test_only_unchanged_words_are_literal() -> None:
    matcher = TermMatcher(["pen is"])

    def literal(text: str) -> list[bool]:
        return [hit.is_literal for hits in matcher.find(text) for hit in hits]

    assert literal("the pen is red") == [True]
    assert literal("pe nis") == literal("penis") == literal("p e n i s") == [False]
    assert not any(literal("pen 1s"))


def test_impossible_terms_are_refused() -> None:
    for term in ("", "!", "a", "a*b", "* *", "x" * 101, "a ... ", "..."):
        with pytest.raises(PolicyError):
            TermMatcher([term])


def test_a_matcher_without_terms_finds_nothing() -> None:
    assert list(TermMatcher([]).find("apple")) == []

"""Terms are found as whole words, split, glued, stretched and masked, and not inside of others."""

import pytest

from model.errors import PolicyError
from model.policy.matcher import TermMatcher

TERMS = ["apple", "red pear", "plum*", "*berry", "=fig", "old ... tree", "boot", "12 pears", "林檎"]
LEXICON = TermMatcher(TERMS, fillers=["cake"])


def found(text: str) -> set[str]:
    return {TERMS[hit.term] for hits in LEXICON.find(text) for hit in hits}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("an apple a day", {"apple"}),
        ("pineapple, applet", set()),
        ("apples, apple's", {"apple"}),
        ("app le", {"apple"}),
        ("app, le", set()),
        ("a, p, p, l, e", {"apple"}),
        ("ap-p.l_e", {"apple"}),
        ("aple", set()),
        ("aappplee", {"apple"}),
        ("a*ple", {"apple"}),
        ("4pp13", {"apple"}),
        ("apple, 3", {"apple"}),
        ("a, apple, e", {"apple"}),
        ("boot, t", {"boot"}),
        ("b, boot t", {"boot"}),
        ("a appleboot t", {"apple", "boot"}),
        ("red pear", {"red pear"}),
        ("red_pears", {"red pear"}),
        ("redpear", {"red pear"}),
        ("red, pear", set()),
        ("plum, plums, plumage", {"plum*"}),
        ("a plu mage", {"plum*"}),
        ("strawberry", {"*berry"}),
        ("berry", {"*berry"}),
        ("fig", {"=fig"}),
        ("a, fig\nb", {"=fig"}),
        ("a fig, b", set()),
        ("old tree", {"old ... tree"}),
        ("old, very big tree", {"old ... tree"}),
        ("old and very big tree", set()),
        ("tree old", set()),
        ("appleboot", {"apple", "boot"}),
        ("applecake", {"apple"}),
        ("bootapplecakes", {"apple", "boot"}),
        ("bootapplex", set()),
        ("12 pears", {"12 pears"}),
        ("112 pears", set()),
        ("12pears", {"12 pears"}),
        ("l2 pears", {"12 pears"}),
        ("bot", set()),
        ("b oo t", {"boot"}),
        ("8007", set()),
        ("b 007", set()),
        ("赤い林檎です", {"林檎"}),
        ("", set()),
        ("...", set()),
    ],
)
def test_what_is_found(text: str, terms: set[str]) -> None:
    assert found(text) == terms


def test_glued_words_may_share_a_letter_that_is_stretched() -> None:
    lexicon = TermMatcher(["teen", "nude"])
    assert {hit.term for hits in lexicon.find("teennude") for hit in hits} == {0, 1}
    assert {hit.term for hits in lexicon.find("teenude") for hit in hits} == set()


def test_only_what_stands_there_letter_for_letter_is_literal() -> None:
    lexicon = TermMatcher(["pen is"])

    def literal(text: str) -> list[bool]:
        return [hit.is_literal for hits in lexicon.find(text) for hit in hits]

    assert literal("the pen is red") == [True]
    assert literal("pe nis") == literal("penis") == literal("p e n i s") == [False]
    assert not any(literal("pen 1s"))


@pytest.mark.parametrize("term", ["", "!", "a", "a*b", "* *", "x" * 101, "a ... ", "..."])
def test_terms_that_could_never_be_found_are_refused(term: str) -> None:
    with pytest.raises(PolicyError):
        TermMatcher([term])


def test_no_terms_find_nothing() -> None:
    assert list(TermMatcher([]).find("apple")) == []

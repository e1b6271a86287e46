"""Terms are found as whole words, also split, glued, stretched or masked, but not within words."""

import pytest

from model.errors import PolicyError
from model.policy.matcher import TermMatcher
from model.policy.normalize import readings
from model.policy.spellings import Match, Spellings

TERMS = [
    "apple",
    "red pear",
    "plum*",
    "*berry",
    "=fig",
    "quince=",
    "old ... tree",
    "boot",
    "12 pears",
    "林檎",
    "tangerin*",
]
MATCHER = TermMatcher(TERMS, fillers=["cake"])


def terms(matcher: TermMatcher, text: str) -> set[int]:
    """The numbers of the terms in a text."""
    search = matcher.search()
    return {hit.term for reading in readings(text) for hit in search.find(reading)}


def found(text: str) -> set[str]:
    return {TERMS[term] for term in terms(MATCHER, text)}


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
        "a plu mage": set(),
        "a strawb erry": set(),
        "a tanger ines": {"tangerin*"},
        "tan gerine": {"tangerin*"},
        "strawberry": {"*berry"},
        "berry": {"*berry"},
        "fig": {"=fig"},
        "a, fig\nb": {"=fig"},
        "a fig, b": set(),
        "quince, a quince\nb": {"quince="},
        "quince jam": set(),
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
    assert terms(matcher, "teennude") == {0, 1}
    assert terms(matcher, "teenude") == set()


def test_some_terms_are_found_only_if_they_are_glued() -> None:
    matcher = TermMatcher(["red", "+fig", "red fig"], fillers=["cake"])
    for text in ("fig", "a fig tree", "f i g", "f*g", "figs"):
        assert terms(matcher, text) == set(), text
    for text in ("redfig", "redfigs", "r3df1g", "r*df*g", "redfigcake"):
        assert terms(matcher, text) >= {0, 1}, text
    assert terms(matcher, "figcakered") == {0, 1}
    assert terms(matcher, "redfig") == {0, 1, 2}, "also those of one word in a term of several"
    with pytest.raises(PolicyError, match="no word of at least three letters"):
        TermMatcher(["+red fig"])


def test_a_long_filler_hides_the_terms_of_which_it_consists() -> None:
    matcher = TermMatcher(["small", "red"], fillers=["smalltree", "tree", "house"])
    for text in ("smalltree", "smalltreehouse", "housesmalltree"):
        assert terms(matcher, text) == set(), text
    assert terms(matcher, "smallhouse") == {0}
    assert terms(matcher, "smalltreered") == {1}
    assert terms(matcher, "smalltreesmall") == {0}


def test_masks_cover_letters() -> None:
    for text in ("a*ple", "a#ple", "a?ple", "a%ple", "a○ple", "a█ple", "a★ple", "ap**e", "a***e"):
        assert found(text) == {"apple"}, text
    for text in ("app-e", "ap_le x, appl.e", "a_ple", "b_ot", "a@ple", "app!e", "b$ot", "b+ot"):
        assert found(text) != set(), text
    for text in (
        "a****e",
        "a**** e",
        "a--ple",
        "@ple",
        "a @ple",
        "a! ple",
        "a@p!le",
        "x-a-ple",
        "a-ple-x",
        "f_g",
        "a ple",
    ):
        assert found(text) == set(), text


def test_a_sign_covers_a_letter_whatever_the_words_beside_end_with() -> None:
    for text in (
        "b-ot",
        "grab b-ot",
        "b-ot two",
        "b b-ot t",
        "b-ottt, x",
        "b-ots",
        "bo-ts",
        "old big tr=e",
    ):
        assert found(text) in ({"boot"}, {"old ... tree"}), text
    for text in ("bb-ot", "b-t", "x-b-ot", "b-o t", "pl-mage", "12 p-ars", "ca-e"):
        assert found(text) == set(), text
    assert terms(TermMatcher(["apple"]), "ap-le") == {0}
    assert terms(TermMatcher(["apple"]), "a-le") == set()
    assert terms(TermMatcher(["+boot"]), "b-ot") == set(), "it is no word alone"


def test_words_of_one_letter_in_a_row() -> None:
    matcher = TermMatcher(["=xxx", "lil ... tree", "ooo", "boot"])
    for text, expected in {
        "xxx": {0}, "a, xxxxx": {0}, "x x x": {0}, "xx": set(), "a xxx": set(), "x": set(),
        "lil tree": {1}, "IIII big tree": {1}, "il tree": set(), "l i l tree": {1},
        "ooo": {2}, "ooooboot": {2, 3}, "oo boot": {3}, "o0o": {2}, "bootooo": {2, 3},
    }.items():  # fmt: skip
        assert terms(matcher, text) == expected, text
    assert terms(TermMatcher(["xxx"]), "a xxxx b") == {0}, "the only term"


def test_numbers_are_no_letters() -> None:
    matcher = TermMatcher(["tit", "boot"])
    for text in ("request 717", "717", "a 717 b", "8007", "t 717", "room 8007, b", "test 1717"):
        assert terms(matcher, text) == set(), text
    for text in ("t1t", "7it", "t 1 t", "b007"):
        assert terms(matcher, text) != set(), text


def test_open_terms_may_end_with_the_letter_that_follows() -> None:
    for text in ("plum, many", "a plumm", "many plum m"):
        assert found(text) == {"plum*"}, text
    for text in ("oberry", "o, oberry"):
        assert found(text) == {"*berry"}, text


def test_only_needed_groups_are_looked_for() -> None:
    groups = [frozenset([7]), frozenset([8]), frozenset([8, 9])]
    matcher = TermMatcher(["apple", "boot", "old ... tree"], groups=groups)
    (reading,) = readings("apple boot apple, old big tree, bootapple")
    needed = {8}
    search = matcher.search(needed)
    assert {hit.term for hit in search.find(reading)} == {1, 2}
    needed.clear()
    assert list(search.find(reading)) == []
    assert {hit.term for hit in matcher.search({7}).find(reading)} == {0}
    assert {hit.term for hit in matcher.search({9}).find(reading)} == {2}


@pytest.mark.parametrize("number", [200, 300])
def test_any_number_of_groups_is_told_apart(number: int) -> None:
    words = [f"{one}{other}{one}q" for one in "abcdeghkmnoprtu" for other in "fvwxyzlisjabcdeghkmn"]
    matcher = TermMatcher(words[:number])
    (reading,) = readings(", ".join(words[:number]))
    for group in (0, 7, number - 1):
        assert {hit.term for hit in matcher.search({group}).find(reading)} == {group}


def test_a_glued_word_is_remembered_with_the_terms_that_were_not_needed() -> None:
    matcher = TermMatcher(["apple", "boot"], groups=[frozenset([7]), frozenset([8])])
    (reading,) = readings("bootapple")
    for needed, terms_found in (({8}, {1}), ({7}, {0}), ({7, 8}, {0, 1})):
        assert {hit.term for hit in matcher.search(needed).find(reading)} == terms_found


def test_glued_words_of_earlier_texts_are_not_searched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []
    find = Spellings.matches

    def count(self: Spellings, squeezed: str) -> list[Match]:
        searched.append(squeezed)
        return find(self, squeezed)

    monkeypatch.setattr(Spellings, "matches", count)
    matcher = TermMatcher(["apple", "boot"])
    assert terms(matcher, "bootapple") == terms(matcher, "bootapple") == {0, 1}
    assert searched == ["botapie"] * 3, "twice as a text, and once as a word"


def test_spellings_are_found_in_the_order_of_their_ends_the_longest_first() -> None:
    """Splitting glued words relies on it."""
    spellings = Spellings(["tea", "team", "ea", "eat", "at", "meat"], [frozenset()] * 6, ())
    found = [(end, begin) for _, begin, end in spellings.matches("teameateat")]
    assert found == sorted(found)
    assert {(3, 0), (3, 1), (4, 0), (7, 3), (7, 4)} <= set(found)


def test_every_place_of_a_term_is_told() -> None:
    (reading,) = readings("an apple, a-pple, old tree, apple")
    hits = {TERMS[hit.term]: hit for hit in MATCHER.search().find(reading)}
    places = [
        place
        for hit in MATCHER.search().find(reading)
        if TERMS[hit.term] == "apple"
        for place in zip(hit.firsts, hit.lasts, strict=True)
    ]
    assert set(places) == {(1, 1), (2, 3), (6, 6)}
    assert (hits["old ... tree"].firsts, hits["old ... tree"].lasts) == ([4], [5])


def test_impossible_terms_are_refused() -> None:
    for term in ("", "!", "a", "a*b", "* *", "x" * 101, "a ... ", "..."):
        with pytest.raises(PolicyError):
            TermMatcher([term])


def test_a_matcher_without_terms_finds_nothing() -> None:
    assert terms(TermMatcher([]), "apple") == set()

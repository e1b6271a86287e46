"""Words are split into pieces without a rest; pieces may share a stretched letter."""

from operator import itemgetter

from model.policy.glued import GluedWords, KnownWords
from model.policy.normalize import squeeze
from model.policy.patterns import parts_of


def chained(word: str, pieces: list[tuple[str, int]]) -> set[str]:
    """The terms in chains; each term at a place of the squeezed word."""
    squeezed, places, _ = squeeze(word)
    found = []
    for number, (term, begin) in enumerate(pieces):
        (part,) = parts_of(term)
        letters, pattern = next(part.spellings())
        found.append((begin, begin + len(letters), pattern, frozenset([number])))
    words = GluedWords(word, places, {0: len(squeezed)})
    found.sort(key=itemgetter(1, 0))
    return {pieces[number][0] for *_, numbers in words.chained(found) for number in numbers}


def test_a_chain_leaves_no_rest() -> None:
    assert chained("redcake", [("red", 0), ("cake", 3)]) == {"red", "cake"}
    assert chained("redcakes", [("red", 0), ("cake", 3)]) == set()
    assert chained("redcake", [("red", 0), ("ake", 4)]) == set()
    assert chained("redcake", [("red", 0), ("cake", 3), ("cak", 3)]) == {"red", "cake"}


def test_few_words_are_remembered_and_no_long_ones() -> None:
    known = KnownWords()
    known.add({"redcake": frozenset([1]), "red" * 20: frozenset([2])})
    assert (known.get("redcake"), known.get("red" * 20)) == (frozenset([1]), None)
    for number in range(30):
        known.add({f"{number} {word}": frozenset() for word in range(1000)})
    words = [f"{number} {word}" for number in range(30) for word in range(1000)]
    assert sum(known.get(word) is not None for word in words) < 10_000
    assert known.get("redcake") is None
    assert known.get("29 999") == frozenset()


def test_pieces_share_a_letter_only_where_it_is_stretched() -> None:
    assert chained("reddog", [("red", 0), ("dog", 2)]) == {"red", "dog"}
    assert chained("redog", [("red", 0), ("dog", 2)]) == set()

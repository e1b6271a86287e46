"""Words are split into pieces without a rest; pieces may share a stretched letter."""

from model.policy.glued import GluedWords, Piece
from model.policy.normalize import squeeze
from model.policy.patterns import parts_of


def chained(word: str, pieces: list[tuple[str, int]]) -> set[str]:
    """The terms in chains; each term at a place of the squeezed word."""
    squeezed, places = squeeze(word)
    found = []
    for number, (term, begin) in enumerate(pieces):
        (part,) = parts_of(term)
        letters, pattern = next(part.spellings())
        found.append(Piece(begin, begin + len(letters), pattern, number))
    words = GluedWords(word, places, {0: len(squeezed)})
    return {pieces[piece.part][0] for piece in words.chained(found)}


def test_a_chain_leaves_no_rest() -> None:
    assert chained("redcake", [("red", 0), ("cake", 3)]) == {"red", "cake"}
    assert chained("redcakes", [("red", 0), ("cake", 3)]) == set()
    assert chained("redcake", [("red", 0), ("ake", 4)]) == set()
    assert chained("redcake", [("red", 0), ("cake", 3), ("cak", 3)]) == {"red", "cake"}


def test_pieces_share_a_letter_only_where_it_is_stretched() -> None:
    assert chained("reddog", [("red", 0), ("dog", 2)]) == {"red", "dog"}
    assert chained("redog", [("red", 0), ("dog", 2)]) == set()

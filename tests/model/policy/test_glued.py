"""Words are split into pieces without a rest; pieces may share a stretched letter."""

from model.policy.glued import Piece, Word
from model.policy.normalize import squeeze_runs
from model.policy.patterns import parts_of


def chained(word: str, pieces: list[tuple[str, int]]) -> set[str]:
    """The terms in chains; each term at a place of the squeezed word."""
    _, runs = squeeze_runs(word)
    places = [sum(runs[:at]) for at in range(len(runs) + 1)]
    terms = [term for term, _ in pieces]
    found = []
    for number, (term, begin) in enumerate(pieces):
        (part,) = parts_of(term)
        pattern = part.pattern(next(part.spellings()))
        end = begin + len(squeeze_runs(term)[0])
        found.append(Piece(pattern, [(number, 0)], begin, end))
    in_order = sorted(found, key=lambda piece: (piece.begin, piece.end))
    return {terms[piece.parts[0][0]] for piece in Word(word, places).chained(in_order)}


def test_a_chain_leaves_no_rest() -> None:
    assert chained("redcake", [("red", 0), ("cake", 3)]) == {"red", "cake"}
    assert chained("redcakes", [("red", 0), ("cake", 3)]) == set()
    assert chained("redcake", [("red", 0), ("ake", 4)]) == set()
    assert chained("redcake", [("red", 0), ("cake", 3), ("cak", 3)]) == {"red", "cake"}


def test_pieces_share_a_letter_only_where_it_is_stretched() -> None:
    assert chained("reddog", [("red", 0), ("dog", 2)]) == {"red", "dog"}
    assert chained("redog", [("red", 0), ("dog", 2)]) == set()

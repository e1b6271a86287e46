"""The ratings are the safety tags of the cards, in the same order."""

import pytest

from model.card import card_names, load_card
from model.rating import RATINGS


@pytest.mark.parametrize("name", card_names())
def test_a_cards_safety_tags_are_ratings_in_their_order(name: str) -> None:
    safety = load_card(name).prompting.safety
    assert safety
    assert list(safety) == [rating for rating in RATINGS if rating in safety]

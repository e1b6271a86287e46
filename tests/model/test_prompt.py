from typing import Any

import pytest

from model.card import load_card
from model.prompt import lint, split_tags
from model.request import request_type, resolve

CARD = load_card("kirazuri-v1")
GOOD = CARD.prompting.example


def codes(**fields: Any) -> set[str]:
    request = request_type(CARD)(**{"prompt": GOOD, **fields})
    return {warning.code for warning in lint(resolve(request, CARD, seed=1), CARD)}


def test_the_cards_own_example_draws_no_warning() -> None:
    assert codes() == set()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"steps": 10}, "steps_not_recommended"),
        ({"steps": 30, "sampler": "sa_solver_pece"}, "steps_not_recommended"),
        ({"cfg_scale": 7}, "cfg_scale_not_recommended"),
        ({"resolution": "1024x768"}, "size_not_trained"),
        ({"prompt": "1girl, smile"}, "short_prompt"),
        ({"prompt": f"1girl, {GOOD}"}, "tag_order"),
        ({"prompt": f"{GOOD}, masterpiece"}, "tag_order"),
        ({"prompt": f"{GOOD}, watercolor (medium)"}, "unescaped_parentheses"),
    ],
)
def test_each_advice_is_given_alone(fields: dict[str, Any], code: str) -> None:
    assert codes(**fields) == {code}


@pytest.mark.parametrize("tail", [r"watercolor \(medium\)", "(red hair)", "(red hair:1.2)"])
def test_emphasis_and_escapes_are_left_alone(tail: str) -> None:
    assert codes(prompt=f"{GOOD}, {tail}") == set()


def test_prose_is_not_called_a_short_prompt() -> None:
    prose = (
        "A girl with long silver hair stands in the rain under a red umbrella, looking at the sea."
    )
    assert codes(prompt=prose) == set()


def test_tags_are_split_and_trimmed() -> None:
    assert split_tags(" 1Girl ,, red hair,") == ["1girl", "red hair"]

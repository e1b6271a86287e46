"""Sizes are computed within the limits of a card."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.card import card_names, load_card
from model.sizes import (
    enlarged_size,
    fitted_size,
    largest_scale,
    parse_resolution,
    substitute_size,
)

CARD = load_card("kirazuri-v1")


@given(st.integers(0, 4096), st.integers(0, 4096))
def test_any_size_is_allowed_or_refused_with_a_reason(width: int, height: int) -> None:
    if CARD.limits.size_problem(width, height) is None:
        assert parse_resolution(f"{width}x{height}", CARD) == (width, height)
    else:
        with pytest.raises(ValueError, match=r"outside|multiple|limit"):
            parse_resolution(f"{width}x{height}", CARD)


@given(st.text(max_size=20))
def test_any_other_text_is_refused(text: str) -> None:
    if text not in {preset.name for preset in CARD.resolutions}:
        with pytest.raises(ValueError, match="not a preset"):
            parse_resolution(text, CARD)


def test_sizes_outside_the_limits_are_refused_with_a_reason() -> None:
    for width, height, word in (
        (1024, 1000, "multiple"),
        (0, 1024, "outside"),
        (17, 1024, "multiple"),
        (10**9, 1024, "outside"),
        (2048, 2048, "pixels"),
    ):
        problem = CARD.limits.size_problem(width, height)
        assert problem is not None
        assert word in problem


@pytest.mark.parametrize("name", card_names())
@given(width=st.integers(1, 70_000), height=st.integers(1, 70_000))
def test_any_picture_is_fitted_to_an_allowed_size(name: str, width: int, height: int) -> None:
    limits = load_card(name).limits
    size = fitted_size(width, height, limits)
    assert limits.size_problem(*size) is None
    if limits.size_problem(width, height) is None:
        assert size == (width, height)
    elif limits.min_side < min(width, height) and 0.5 < width / height < 2:
        assert abs(size[0] / size[1] * height / width - 1) < 0.2


@pytest.mark.parametrize("name", card_names())
def test_presets_can_be_enlarged_to_the_largest_scale(name: str) -> None:
    limits = load_card(name).limits
    for preset in load_card(name).resolutions:
        scale = largest_scale(preset.width, preset.height, limits)
        assert scale >= 1
        size = enlarged_size(preset.width, preset.height, scale + 0.3, limits)
        assert limits.size_problem(*size) is not None
    assert enlarged_size(144, 112, 1.5, load_card("kirazuri-tiny").limits) == (224, 176)


def test_an_impossible_size_is_replaced_by_a_preset() -> None:
    for name, requested, expected in (
        ("kirazuri-v1", (1000, 1000), (1008, 1008)),
        ("kirazuri-v1", (1536, 1024), (1536, 1024)),
        ("kirazuri-v1", (4096, 4096), (1280, 1280)),
        ("kirazuri-tiny", (1024, 1024), (192, 192)),
        ("kirazuri-tiny", (1536, 1024), (144, 112)),
        ("kirazuri-tiny", (1024, 1792), (112, 144)),
        ("kirazuri-tiny", (8, 8), (128, 128)),
    ):
        card = load_card(name)
        assert substitute_size(*requested, card) == expected
        assert card.limits.size_problem(*expected) is None

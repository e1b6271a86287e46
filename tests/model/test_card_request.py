"""Requests are checked against the card, and all errors are reported together."""

from typing import Any

import pytest
from pydantic import ValidationError

from model.card import SamplerAdvice, load_card
from model.card_request import request_type
from model.request import MAX_SEED, GenerationRequest
from model.resolved_request import resolve_request

CARD = load_card("kirazuri-v1")
REQUEST = request_type(CARD)


def wrong_fields(body: dict[str, Any]) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate(body)
    return {str(error["loc"][0]) for error in caught.value.errors()}


LORAS = request_type(CARD, lambda: {"hats": 1, "style/ink": 2})


def test_an_invalid_lora_is_located() -> None:
    cases: list[tuple[Any, tuple[Any, ...]]] = [
        ([{"name": "hat"}], ("loras", 0, "name")),
        ([{"name": "hats"}, {"name": "../hats"}], ("loras", 1, "name")),
        ([{"name": ""}], ("loras", 0, "name")),
        ([{"name": "x" * 201}], ("loras", 0, "name")),
        ([{"name": "hats", "weight": 4.1}], ("loras", 0, "weight")),
        ([{"name": "hats", "weight": float("nan")}], ("loras", 0, "weight")),
        ([{"name": "hats", "weight": float("-inf")}], ("loras", 0, "weight")),
        ([{"name": "hats", "weight": "1"}], ("loras", 0, "weight")),
        ([{"name": "hats", "weight": None}], ("loras", 0, "weight")),
        ([{"name": "hats", "strength": 1}], ("loras", 0, "strength")),
        ([{"weight": 1}], ("loras", 0, "name")),
        ([{"name": "hats"}, {"name": "hats"}], ("loras",)),
        ([{"name": "hats"}] * 9, ("loras",)),
        ("hats", ("loras",)),
        (["hats"], ("loras", 0)),
        (None, ("loras",)),
    ]
    for loras, place in cases:
        with pytest.raises(ValidationError) as caught:
            LORAS.model_validate({"prompt": "1girl", "loras": loras})
        assert [error["loc"] for error in caught.value.errors()] == [place], loras


def test_without_a_folder_every_lora_is_unknown() -> None:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate({"prompt": "1girl", "loras": [{"name": "hats"}]})
    (error,) = caught.value.errors()
    assert error["ctx"] == {"allowed": []}


def test_all_wrong_fields_are_reported_together() -> None:
    body = {
        "prompt": "",
        "negative_prompt": 5,
        "resolution": "17x0",
        "steps": 0,
        "cfg_scale": 31,
        "sampler": "magic",
        "scheduler": "magic",
        "seed": -2,
        "num_images": 9,
        "image_format": "gif",
        "image_quality": 101,
        "metadata": "some",
        "quality": "best",
        "colour": 1,
    }
    assert wrong_fields(body) == set(body)


def test_invalid_values_are_refused() -> None:
    cases: list[tuple[str, object]] = [
        ("steps", 101),
        ("steps", True),
        ("steps", "20"),
        ("steps", 2.5),
        ("cfg_scale", float("nan")),
        ("cfg_scale", float("inf")),
        ("cfg_scale", "4"),
        ("seed", MAX_SEED + 1),
        ("resolution", "1024×1024"),
        ("resolution", "1024x1024x1"),
        ("resolution", "x"),
        ("resolution", "٣٢x٣٢"),
        ("resolution", "1000000000x16"),
        ("resolution", "9" * 5000 + "x16"),
        ("prompt", "a" * 10_001),
        ("prompt", "\ud800"),
        ("prompt", "nul \x00"),
        ("negative_prompt", "escape \x1b[31m"),
    ]
    for field, value in cases:
        assert wrong_fields({"prompt": "x", field: value}) == {field}, value


def test_ordinary_text_is_accepted() -> None:
    for prompt in ("初音ミク, 🎀", "two\nlines\tand a tab", "(red hair:1.2)"):
        assert REQUEST(prompt=prompt).prompt == prompt


def test_the_schema_lists_the_choices_and_limits_of_the_card() -> None:
    schema = REQUEST.model_json_schema()
    properties = schema["properties"]
    assert set(properties) == set(GenerationRequest.model_fields)
    assert properties["sampler"]["anyOf"][0]["enum"] == list(CARD.samplers)
    assert properties["steps"]["anyOf"][0]["maximum"] == CARD.limits.max_steps
    assert "portrait" in properties["resolution"]["description"]


def test_options_are_checked_against_the_default_sampler() -> None:
    request = REQUEST(prompt="x", sampler_options={"max_stage": 2})
    assert resolve_request(request, CARD, seed=1).sampler_options == {"max_stage": 2}
    assert wrong_fields({"prompt": "x", "sampler": "euler", "sampler_options": {"eta": 0}}) == {
        "sampler_options"
    }
    unchecked = GenerationRequest(prompt="x", sampler="euler", sampler_options={"eta": 0})
    with pytest.raises(ValueError, match="euler has no options"):
        resolve_request(unchecked, CARD, seed=1)


def test_a_sampler_for_distilled_checkpoints_is_offered_by_distilled_cards_only() -> None:
    advice = SamplerAdvice(default_steps=4, recommended_steps=(2, 8))
    distilled = CARD.model_copy(
        update={"is_distilled": True, "samplers": {**CARD.samplers, "lcm": advice}}
    )
    request = request_type(distilled)(prompt="x", sampler="lcm")
    assert resolve_request(request, distilled, seed=1).steps == 4
    with pytest.raises(ValidationError, match="lcm is not offered: it is for distilled"):
        REQUEST(prompt="x", sampler="lcm")


def test_a_quality_is_exact_or_offered_by_the_card() -> None:
    assert REQUEST(prompt="x").quality == "exact"
    for name in ("exact", *CARD.qualities):
        resolved = resolve_request(REQUEST(prompt="x", quality=name), CARD, seed=1)
        assert resolved.quality == name
    plain = request_type(CARD.model_copy(update={"qualities": {}}))
    for refusing, value, allowed in (
        (REQUEST, "best", "'exact', 'balanced' or 'fast'"),
        (plain, "fast", "'exact'"),
    ):
        with pytest.raises(ValidationError) as caught:
            refusing.model_validate({"prompt": "x", "quality": value})
        (error,) = caught.value.errors()
        assert (error["loc"], error["ctx"]) == (("quality",), {"expected": allowed})
    with pytest.raises(ValidationError, match=r"with er_sde, .* only; with dpmpp_2m use fewer"):
        REQUEST(prompt="x", quality="fast", sampler="dpmpp_2m")


def test_lengths_are_checked_before_anything_that_takes_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_for: list[str] = []

    def names() -> dict[str, int]:
        looked_for.append("a LoRA")
        return {"hats": 1}

    def check(*_: object) -> None:
        raise AssertionError("the options were checked")

    monkeypatch.setattr("model.card_request.check_sampler_options", check)
    request = request_type(CARD, names)
    bodies: dict[str, Any] = {
        "loras": [{}] * 9_000,
        "sampler_options": {f"option_{number}": number for number in range(9_000)},
        "prompt": "a" * 1_000_000,
    }
    found = []
    for field, value in [*bodies.items(), ("loras", [{"name": "x" * 1_000_000}])]:
        with pytest.raises(ValidationError) as caught:
            request.model_validate({"prompt": "a", field: value})
        found.append([error["type"] for error in caught.value.errors()])
    assert found == [["too_long"], ["too_long"], ["string_too_long"], ["string_too_long"]]
    assert looked_for == []

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.card import SamplerAdvice, load_card
from model.card_request import request_type
from model.request import MAX_SEED, GenerationRequest
from model.resolved_request import ResolvedLora, ResolvedRequest, resolve
from model.sizes import parse_resolution

CARD = load_card("kirazuri-v1")
REQUEST = request_type(CARD)


def wrong_fields(body: dict[str, Any]) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate(body)
    return {str(error["loc"][0]) for error in caught.value.errors()}


LORAS = request_type(CARD, lambda: {"hats": 1, "style/ink": 2})


def test_loras_are_resolved_with_their_files() -> None:
    body = {"prompt": "1girl", "loras": [{"name": "style/ink", "weight": -0.5}, {"name": "hats"}]}
    hashes = {"hats": "a" * 64, "style/ink": "b" * 64}
    resolved = resolve(LORAS.model_validate(body), CARD, seed=1, lora_hashes=hashes)
    assert resolved.loras == (
        ResolvedLora(name="style/ink", weight=-0.5, sha256="b" * 64),
        ResolvedLora(name="hats", weight=1.0, sha256="a" * 64),
    )
    assert ResolvedRequest.model_validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize(
    ("loras", "place"),
    [
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
    ],
)
def test_a_wrong_lora_is_found_at_its_place(loras: Any, place: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        LORAS.model_validate({"prompt": "1girl", "loras": loras})
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_without_a_folder_every_lora_is_unknown() -> None:
    with pytest.raises(ValidationError) as caught:
        REQUEST.model_validate({"prompt": "1girl", "loras": [{"name": "hats"}]})
    (error,) = caught.value.errors()
    assert error["ctx"] == {"allowed": []}


def test_a_request_of_an_earlier_release_has_no_loras() -> None:
    resolved = resolve(REQUEST(prompt="1girl"), CARD, seed=7)
    stored = resolved.model_dump(mode="json", exclude={"loras"})
    assert ResolvedRequest.model_validate(stored).loras == ()


def test_defaults_come_from_the_card() -> None:
    resolved = resolve(REQUEST(prompt="1girl"), CARD, seed=7)
    assert resolved == ResolvedRequest(
        prompt="1girl",
        negative_prompt=CARD.defaults.negative_prompt,
        width=1024,
        height=1024,
        steps=30,
        cfg_scale=4.0,
        sampler="er_sde",
        scheduler="simple",
        seed=7,
        num_images=1,
        image_format="png",
        image_quality=90,
        metadata="full",
    )


def test_what_the_client_says_wins() -> None:
    request = REQUEST(
        prompt="x",
        negative_prompt="",
        resolution="832x1216",
        steps=3,
        cfg_scale=1,
        sampler="heun",
        scheduler="beta",
        seed=0,
    )
    resolved = resolve(request, CARD, seed=7)
    assert (resolved.width, resolved.height) == (832, 1216)
    assert (resolved.negative_prompt, resolved.steps, resolved.cfg_scale) == ("", 3, 1.0)
    assert (resolved.sampler, resolved.scheduler, resolved.seed) == ("heun", "beta", 0)


def test_default_steps_follow_the_sampler() -> None:
    resolved = resolve(REQUEST(prompt="x", sampler="sa_solver_pece"), CARD, seed=1)
    assert resolved.steps == CARD.samplers["sa_solver_pece"].default_steps


def test_every_wrong_field_is_named_at_once() -> None:
    body = {
        "prompt": "",
        "negative_prompt": 5,
        "resolution": "17x0",
        "steps": 0,
        "cfg_scale": 31,
        "sampler": "magic",
        "scheduler": "magic",
        "seed": -1,
        "num_images": 9,
        "image_format": "gif",
        "image_quality": 101,
        "metadata": "some",
        "colour": 1,
    }
    assert wrong_fields(body) == set(body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
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
    ],
)
def test_a_wrong_value_is_refused(field: str, value: object) -> None:
    assert wrong_fields({"prompt": "x", field: value}) == {field}


@pytest.mark.parametrize("prompt", ["初音ミク, 🎀", "two\nlines\tand a tab", "(red hair:1.2)"])
def test_ordinary_text_passes(prompt: str) -> None:
    assert REQUEST(prompt=prompt).prompt == prompt


def test_the_schema_lists_the_choices_and_limits_of_the_card() -> None:
    schema = REQUEST.model_json_schema()
    properties = schema["properties"]
    assert set(properties) == set(GenerationRequest.model_fields)
    assert properties["sampler"]["anyOf"][0]["enum"] == list(CARD.samplers)
    assert properties["steps"]["anyOf"][0]["maximum"] == CARD.limits.max_steps
    assert "portrait" in properties["resolution"]["description"]


@given(st.integers(0, 4096), st.integers(0, 4096))
def test_any_size_is_either_allowed_or_refused_with_a_reason(width: int, height: int) -> None:
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


def test_options_are_checked_against_the_sampler_that_the_card_stands_in_for() -> None:
    request = REQUEST(prompt="x", sampler_options={"max_stage": 2})
    assert resolve(request, CARD, seed=1).sampler_options == {"max_stage": 2}
    assert wrong_fields({"prompt": "x", "sampler": "euler", "sampler_options": {"eta": 0}}) == {
        "sampler_options"
    }
    unchecked = GenerationRequest(prompt="x", sampler="euler", sampler_options={"eta": 0})
    with pytest.raises(ValueError, match="euler has no options"):
        resolve(unchecked, CARD, seed=1)


def test_a_resolved_request_keeps_the_types_of_its_options() -> None:
    options = {"simple_order_2": True, "predictor_order": 2, "eta": 1.0}
    request = REQUEST(prompt="x", sampler="sa_solver", sampler_options=options)
    resolved = resolve(request, CARD, seed=1)
    again = ResolvedRequest.model_validate_json(resolved.model_dump_json())
    assert again == resolved
    assert [type(value) for value in again.sampler_options.values()] == [bool, int, float]


def test_a_sampler_that_needs_a_distilled_checkpoint_is_offered_where_the_card_says_so() -> None:
    advice = SamplerAdvice(default_steps=4, recommended_steps=(2, 8))
    distilled = CARD.model_copy(
        update={"is_distilled": True, "samplers": {**CARD.samplers, "lcm": advice}}
    )
    request = request_type(distilled)(prompt="x", sampler="lcm")
    assert resolve(request, distilled, seed=1).steps == 4
    with pytest.raises(ValidationError, match="lcm is not offered: it is for distilled"):
        REQUEST(prompt="x", sampler="lcm")

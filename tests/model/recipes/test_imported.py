"""From the document in a file back to a request: the same picture."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.card import load_card
from model.card_request import request_type
from model.recipes.imported import import_document
from model.recipes.recipe import Recipe, read_document, write_document
from model.resolved_request import InputNames, resolve

CARD = load_card("kirazuri-v1")
REQUEST = request_type(CARD)
RECIPE = Recipe(card="kirazuri-v1", checkpoint="ab" * 32)

FIELDS = st.fixed_dictionaries(
    {"prompt": st.text("ab ,\n青", min_size=1, max_size=20)},
    optional={
        "negative_prompt": st.none() | st.text("ab", max_size=5),
        "resolution": st.sampled_from([None, "square", "832x1216", "portrait_hd"]),
        "steps": st.integers(1, 100),
        "cfg_scale": st.floats(1, 30),
        "sampler": st.sampled_from(sorted(CARD.samplers)),
        "scheduler": st.sampled_from(CARD.schedulers),
        "seed": st.integers(0, 2**52),
        "image_format": st.sampled_from(["png", "webp", "jpeg", "avif"]),
        "image_quality": st.integers(1, 100),
        "hires": st.none()
        | st.fixed_dictionaries(
            {"scale": st.floats(1.01, 1.2)},
            optional={
                "steps": st.integers(1, 100),
                "strength": st.floats(0, 1),
                "upscaler": st.sampled_from(["latent", "lanczos"]),
            },
        ),
    },
)


@given(FIELDS)
def test_the_request_in_a_file_resolves_to_itself(fields: dict[str, Any]) -> None:
    resolved = resolve(REQUEST.model_validate(fields), CARD, seed=5)
    document = read_document(write_document(resolved, RECIPE, seed=resolved.seed))
    reading = import_document(document)
    assert reading.notes == []
    assert (reading.is_own, reading.checkpoint) == (True, "ab" * 32)
    assert resolve(REQUEST.model_validate(reading.fields), CARD, seed=9) == resolved


def test_options_of_the_sampler_come_back() -> None:
    request = REQUEST(prompt="x", sampler="er_sde", sampler_options={"eta": 0.5}, seed=1)
    resolved = resolve(request, CARD, seed=1)
    reading = import_document(read_document(write_document(resolved, RECIPE, seed=1)))
    assert resolve(REQUEST.model_validate(reading.fields), CARD, seed=9) == resolved
    assert resolved.sampler_options == {"eta": 0.5}


def test_loras_come_back_by_name() -> None:
    requests = request_type(CARD, lambda: ("ink", "hats"))
    loras = [{"name": "ink", "weight": 0.3}, {"name": "hats", "weight": -1.0}]
    request = requests.model_validate({"prompt": "x", "loras": loras})
    hashes = {"ink": "1" * 64, "hats": "2" * 64}
    resolved = resolve(request, CARD, seed=1, lora_hashes=hashes)
    reading = import_document(read_document(write_document(resolved, RECIPE, seed=1)))
    assert reading.fields["loras"] == loras
    assert reading.lora_hashes == hashes
    again = requests.model_validate(reading.fields)
    assert resolve(again, CARD, seed=9, lora_hashes=hashes) == resolved


def test_the_pictures_that_it_started_from_come_back_by_name() -> None:
    names = InputNames(init_image=f"{'0' * 40}.png", mask=f"{'1' * 40}.png", width=832, height=1216)
    request = REQUEST(prompt="x", init_image=names.init_image, mask=names.mask, strength=0.4)
    resolved = resolve(request, CARD, seed=1, inputs=names)
    reading = import_document(read_document(write_document(resolved, RECIPE, seed=1)))
    again = REQUEST.model_validate(reading.fields)
    assert (again.init_image, again.mask) == (names.init_image, names.mask)
    assert resolve(again, CARD, seed=9, inputs=names) == resolved


def test_fields_of_a_later_release_are_noted() -> None:
    document = read_document(
        '{"schema": 1, "request": {"prompt": "x", "style": "new", "seed": null}}'
    )
    reading = import_document(document)
    assert reading.fields == {"prompt": "x"}
    assert reading.notes == ["style new: this release does not know it"]


@pytest.mark.parametrize("value", ["wide", [], {"a": 1}, 10**400])
def test_odd_values_are_left_to_the_services_check(value: Any) -> None:
    document = read_document('{"schema": 1, "request": {}}').model_copy(
        update={"request": {"steps": value, "width": value, "height": 8}}
    )
    assert import_document(document).fields["steps"] == value

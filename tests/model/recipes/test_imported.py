"""Importing the document of an image file gives the request for the same image."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from model.card import load_card
from model.card_request import request_type
from model.recipes.imported import import_document
from model.recipes.recipe import Recipe, read_document, write_document
from model.resolved_request import InputNames, resolve_request

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
    resolved = resolve_request(REQUEST.model_validate(fields), CARD, seed=5)
    document = read_document(write_document(resolved, RECIPE, seed=resolved.seed))
    imported = import_document(document)
    assert imported.notes == []
    assert (imported.is_own, imported.checkpoint) == (True, "ab" * 32)
    assert resolve_request(REQUEST.model_validate(imported.fields), CARD, seed=9) == resolved


def test_sampler_options_are_imported() -> None:
    request = REQUEST(prompt="x", sampler="er_sde", sampler_options={"eta": 0.5}, seed=1)
    resolved = resolve_request(request, CARD, seed=1)
    imported = import_document(read_document(write_document(resolved, RECIPE, seed=1)))
    assert resolve_request(REQUEST.model_validate(imported.fields), CARD, seed=9) == resolved
    assert resolved.sampler_options == {"eta": 0.5}


def test_loras_are_imported_by_name() -> None:
    requests = request_type(CARD, lambda: ("ink", "hats"))
    loras = [{"name": "ink", "weight": 0.3}, {"name": "hats", "weight": -1.0}]
    request = requests.model_validate({"prompt": "x", "loras": loras})
    hashes = {"ink": "1" * 64, "hats": "2" * 64}
    resolved = resolve_request(request, CARD, seed=1, lora_hashes=hashes)
    imported = import_document(read_document(write_document(resolved, RECIPE, seed=1)))
    assert imported.fields["loras"] == loras
    assert imported.lora_hashes == hashes
    again = requests.model_validate(imported.fields)
    assert resolve_request(again, CARD, seed=9, lora_hashes=hashes) == resolved


def test_input_images_are_imported_by_name() -> None:
    names = InputNames(init_image=f"{'0' * 40}.png", mask=f"{'1' * 40}.png", width=832, height=1216)
    request = REQUEST(prompt="x", init_image=names.init_image, mask=names.mask, strength=0.4)
    resolved = resolve_request(request, CARD, seed=1, inputs=names)
    imported = import_document(read_document(write_document(resolved, RECIPE, seed=1)))
    again = REQUEST.model_validate(imported.fields)
    assert (again.init_image, again.mask) == (names.init_image, names.mask)
    assert resolve_request(again, CARD, seed=9, inputs=names) == resolved


def test_fields_of_a_later_release_are_noted() -> None:
    document = read_document(
        '{"schema": 1, "request": {"prompt": "x", "style": "new", "seed": null}}'
    )
    imported = import_document(document)
    assert imported.fields == {"prompt": "x"}
    assert imported.notes == ["style new: unknown to this release"]


def test_invalid_values_are_left_to_the_validation_of_the_request() -> None:
    values: list[Any] = ["wide", [], {"a": 1}, 10**400]
    for value in values:
        document = read_document('{"schema": 1, "request": {}}').model_copy(
            update={"request": {"steps": value, "width": value, "height": 8}}
        )
        assert import_document(document).fields["steps"] == value

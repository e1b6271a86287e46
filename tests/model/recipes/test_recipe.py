"""Recipes and the document in an image file."""

import hashlib
import json

import pytest
import torch

from model.card import load_card, shipped_folder
from model.engine.loading import load_engine
from model.recipes.imported import import_document
from model.recipes.recipe import (
    MAX_DOCUMENT_CHARS,
    Recipe,
    build_recipe,
    read_document,
    recipe_differences,
    write_document,
)
from tests.support.requests import make_request

RECIPE = Recipe(card="tiny", checkpoint="ab" * 32, precision="float32", threads=2, torch="2.13")


def test_other_entries_of_an_engines_description_are_left_out() -> None:
    description = {"card": "tiny", "device": "cuda:1", "loras": 3, "torch": "2.13"}
    assert build_recipe(description, service="k 1") == Recipe(
        card="tiny", torch="2.13", service="k 1"
    )


def test_recipes_differ_by_field() -> None:
    other = RECIPE.model_copy(update={"threads": 4, "checkpoint": "cd" * 32})
    assert recipe_differences(RECIPE, RECIPE) == []
    assert recipe_differences(RECIPE, other) == ["checkpoint", "threads"]


def test_a_document_can_be_read_again() -> None:
    request = make_request("青い髪", cfg_scale=4.5, num_images=2, deterministic=True)
    document = read_document(write_document(request, RECIPE, seed=8))
    assert document.recipe == RECIPE
    assert document.request["prompt"] == "青い髪"
    assert (document.request["seed"], document.request["num_images"]) == (8, 1)
    assert "deterministic" not in document.request


def test_a_document_has_the_quality_and_gives_it_to_a_request() -> None:
    document = read_document(write_document(make_request(quality="fast"), RECIPE, seed=8))
    assert document.request["quality"] == "fast"
    imported = import_document(document)
    assert imported.fields["quality"] == "fast"
    assert imported.notes == []


def test_fields_of_a_later_release_are_ignored() -> None:
    text = write_document(make_request(), RECIPE, seed=1)
    later = json.loads(text) | {"signature": "x"}
    later["request"]["style"] = "new"
    later["recipe"]["driver"] = "580"
    document = read_document(json.dumps(later))
    assert document.request["style"] == "new"
    assert document.recipe == RECIPE


def test_invalid_documents_are_refused() -> None:
    for text in (
        "",
        "[]",
        "null",
        "{",
        "[" * 10_000,
        '{"schema": 1}',
        '{"schema": 0, "request": {}}',
        '{"schema": 2, "request": {}}',
        '{"schema": "x", "request": {}}',
        '{"schema": 1, "request": []}',
        '{"schema": 1, "request": {}, "recipe": {"threads": "many"}}',
        "a" * (MAX_DOCUMENT_CHARS + 1),
    ):
        with pytest.raises(ValueError, match="the recipe"):
            read_document(text)


def test_a_loaded_engine_describes_its_whole_recipe() -> None:
    engine = load_engine(
        load_card("kirazuri-tiny"),
        None,
        device="cpu",
        precision="float32",
        threads=1,
        token_budget=8192,
    )
    recipe = build_recipe(engine.description(), service="k 1")
    folder = shipped_folder(load_card("kirazuri-tiny"))
    for name, path in (
        ("checkpoint", "diffusion_models/kirazuri-tiny.safetensors"),
        ("text_encoder", "text_encoders/qwen3-tiny.safetensors"),
        ("vae", "vae/qwen-image-vae-tiny.safetensors"),
    ):
        digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        assert getattr(recipe, name) == digest, name
    assert (recipe.card, recipe.precision, recipe.threads) == ("kirazuri-tiny", "float32", 1)
    assert recipe.torch == torch.__version__
    assert "(" in recipe.device_name

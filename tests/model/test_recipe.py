"""Recipes and the document that lies in a file."""

import json
from typing import Any

import pytest

from model.recipe import (
    MAX_DOCUMENT_CHARS,
    Recipe,
    differences,
    read_document,
    recipe_of,
    write_document,
)
from tests.worker.conftest import make_request

RECIPE = Recipe(card="tiny", checkpoint="ab" * 32, precision="float32", threads=2, torch="2.13")


def test_an_engine_tells_more_than_its_recipe() -> None:
    description = {"card": "tiny", "device": "cuda:1", "loras": 3, "torch": "2.13"}
    assert recipe_of(description, service="k 1") == Recipe(card="tiny", torch="2.13", service="k 1")


def test_recipes_differ_by_field() -> None:
    other = RECIPE.model_copy(update={"threads": 4, "checkpoint": "cd" * 32})
    assert differences(RECIPE, RECIPE) == []
    assert differences(RECIPE, other) == ["checkpoint", "threads"]


def test_a_document_comes_back() -> None:
    request = make_request("青い髪", cfg_scale=4.5, num_images=2, deterministic=True)
    document = read_document(write_document(request, RECIPE, seed=8))
    assert document.recipe == RECIPE
    assert document.request["prompt"] == "青い髪"
    assert (document.request["seed"], document.request["num_images"]) == (8, 1)
    assert "deterministic" not in document.request


def test_what_a_later_release_adds_is_passed_over() -> None:
    text = write_document(make_request(), RECIPE, seed=1)
    later = json.loads(text) | {"signature": "x"}
    later["request"]["style"] = "new"
    later["recipe"]["driver"] = "580"
    document = read_document(json.dumps(later))
    assert document.request["style"] == "new"
    assert document.recipe == RECIPE


@pytest.mark.parametrize(
    "text",
    [
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
    ],
)
def test_what_is_no_document_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="the recipe"):
        read_document(text)

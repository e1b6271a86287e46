"""Model names of the loaded checkpoint."""

import httpx2
import pytest

from api.http.errors import UnknownModel
from api.openai.models import check_model_name, model_names
from model.card import load_card
from tests.support.openai_clients import read_openai_error

CARD = load_card("kirazuri-tiny")


def test_checkpoint_is_listed(client: httpx2.Client) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["kirazuri-tiny"]
    assert listed["data"][0]["object"] == "model"
    assert isinstance(listed["data"][0]["created"], int)
    assert listed["data"][0]["owned_by"] == "Kirazuri tiny"


def test_aliases_of_the_checkpoint_are_found(client: httpx2.Client) -> None:
    for name in ("kirazuri-tiny", "gpt-image-1.5", "dall-e-3"):
        assert client.get(f"/v1/models/{name}").json()["id"] == name


def test_unknown_name_is_not_found(client: httpx2.Client) -> None:
    error = read_openai_error(client.get("/v1/models/gpt-7"), 404)
    assert error["code"] == "model_not_found"
    assert "kirazuri-tiny" in error["message"]


def test_names_and_patterns_in_the_settings() -> None:
    aliases = "gpt-image-*, anime,"
    assert model_names(CARD, aliases) == ["kirazuri-tiny", "anime"]
    assert check_model_name(None, CARD, aliases) == "kirazuri-tiny"
    assert check_model_name("gpt-image-2", CARD, aliases) == "gpt-image-2"
    for name in ("", "GPT-IMAGE-2", "anime2"):
        with pytest.raises(UnknownModel):
            check_model_name(name, CARD, aliases)
    with pytest.raises(UnknownModel):
        check_model_name("gpt-image-2", CARD, "")

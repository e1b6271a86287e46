"""Names of LoRAs as people and other programs write them."""

import pytest
from pydantic import ValidationError

from model.card import load_card
from model.card_request import request_type
from model.request import find_lora, match_lora

NAMES = ("sub/Ink", "【画风】wlop", "wave~dash", "Hat", "hat", 'say "hi"', "50%, twice", "a·b")


def test_other_spellings_of_a_name_are_matched() -> None:
    wanted = {
        "sub\\Ink": "sub/Ink",
        "sub/Ink.safetensors": "sub/Ink",
        "SUB/INK.SAFETENSORS": "sub/Ink",
        " sub/Ink ": "sub/Ink",
        "【画风】wlop.safetensors": "【画风】wlop",
        "wave～dash": "wave~dash",
        "５０%，twice".replace("，", ", "): "50%, twice",
        "a·b": "a·b",
        'say "hi"': 'say "hi"',
        "hat": "hat",
        "Hat": "Hat",
        "HAT": None,
        "../sub/Ink": None,
        "Ink": None,
        "": None,
    }
    assert {text: match_lora(text, NAMES) for text in wanted} == wanted


def test_a_folder_is_only_left_out_if_one_name_has_none() -> None:
    names = ("bob/adapter_model", "style/ink", "hat")
    wanted = {
        "anna/adapter_model": None,
        "bob/adapter_model": "bob/adapter_model",
        "adapter_model": "bob/adapter_model",
        "ink": "style/ink",
        "loras\\style\\ink.safetensors": "style/ink",
        "my_style/ink": None,
        "style/hat": "hat",
        "that": None,
    }
    assert {text: find_lora(text, names) for text in wanted} == wanted


def test_a_request_gets_the_name_of_the_folder_and_refused_files_their_reason() -> None:
    requests = request_type(
        load_card("kirazuri-tiny"),
        lambda: NAMES,
        lambda: {
            "old": "old.alpha has shape (1, 1)",
            "n/cut": "is truncated",
            "a/twice": "is truncated",
            "b/twice": "is truncated",
        },
    )
    request = requests.model_validate(
        {"prompt": "1girl", "loras": [{"name": "sub\\Ink.safetensors", "weight": 0.5}]}
    )
    assert [lora.name for lora in request.loras] == ["sub/Ink"]
    with pytest.raises(ValidationError) as caught:
        requests.model_validate({"prompt": "1girl", "loras": [{"name": "OLD.safetensors"}]})
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"]) == ("lora_refused", ("loras", 0, "name"))
    assert "old.alpha has shape (1, 1)" in error["msg"]
    for text, kind, reason in (
        ("HAT", "lora_unknown", "several LoRAs match: Hat, hat; write one of them"),
        ("style/hat", "lora_unknown", "several LoRAs match: Hat, hat; write one of them"),
        ("cut", "lora_refused", "the file of this LoRA, n/cut, is refused: is truncated"),
        ("n/cut.safetensors", "lora_refused", "the file of this LoRA is refused: is truncated"),
        ("twice", "lora_unknown", "several LoRAs match: a/twice, b/twice; write one of them"),
        ("{reason}", "lora_unknown", "there is no LoRA of this name"),
    ):
        with pytest.raises(ValidationError) as caught:
            requests.model_validate({"prompt": "1girl", "loras": [{"name": text}]})
        (error,) = caught.value.errors()
        assert error["type"] == kind, text
        assert error["msg"].startswith(reason), error["msg"]
    request = requests.model_validate({"prompt": "1girl", "loras": [{"name": "ink.safetensors"}]})
    assert [lora.name for lora in request.loras] == ["sub/Ink"]
    with pytest.raises(ValidationError, match="list each LoRA only once"):
        requests.model_validate(
            {"prompt": "1girl", "loras": [{"name": "a·b"}, {"name": "a·b.safetensors"}]}
        )

"""Names under which clients may ask for the loaded checkpoint."""

import pytest

from api.a1111.checkpoint import check_checkpoint, checkpoint_title
from api.http.errors import UnknownModel
from model.card import load_card

TINY, LARGE = load_card("kirazuri-tiny"), load_card("kirazuri-v1")
NAMES = (
    "kirazuri-tiny",
    "kirazuri-tiny.safetensors",
    "Kirazuri Tiny",
    "kirazuri-tiny.safetensors [9f86d08188]",
    "diffusion_models\\kirazuri-tiny.safetensors",
)


def test_every_name_of_the_checkpoint_is_accepted() -> None:
    for name in NAMES:
        check_checkpoint(name, TINY)
    assert checkpoint_title(TINY) == "kirazuri-tiny.safetensors"


def test_names_of_another_checkpoint_are_refused() -> None:
    for name in NAMES:
        with pytest.raises(UnknownModel, match="available model is 'kirazuri-anima-v1"):
            check_checkpoint(name, LARGE)

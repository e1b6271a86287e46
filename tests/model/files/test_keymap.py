"""Every name of the published files maps to the library and back."""

import json
from typing import Any

import pytest

from model.files.keymap import (
    adapter_to_library,
    adapter_to_original,
    text_encoder_to_library,
    text_encoder_to_original,
    transformer_to_library,
    transformer_to_original,
    vae_to_library,
    vae_to_original,
)
from tests.support.paths import DATA

KEYMAPS = json.loads((DATA / "keymaps.json").read_text())
PUBLISHED_RES_BLOCKS = 2


def _pairs(section: str) -> list[tuple[str, str]]:
    entries: dict[str, list[Any]] = KEYMAPS[section]
    return [(original, ours) for original, (ours, _) in entries.items() if ours is not None]


@pytest.mark.parametrize(
    ("section", "count", "to_library", "to_original"),
    [
        ("dit_to_CosmosTransformer3DModel", 567, transformer_to_library, transformer_to_original),
        ("adapter_to_AnimaTextConditioner", 118, adapter_to_library, adapter_to_original),
        ("qwen_to_Qwen3Model", 310, text_encoder_to_library, text_encoder_to_original),
        (
            "vae_to_AutoencoderKLQwenImage",
            194,
            lambda name: vae_to_library(name, PUBLISHED_RES_BLOCKS),
            lambda name: vae_to_original(name, PUBLISHED_RES_BLOCKS),
        ),
    ],
)
def test_every_published_name_goes_there_and_back(
    section: str, count: int, to_library: Any, to_original: Any
) -> None:
    pairs = _pairs(section)
    assert len(pairs) == count
    for original, ours in pairs:
        assert to_library(original) == ours
        assert to_original(ours) == original
    assert len({ours for _, ours in pairs}) == count


def test_with_one_res_block_the_flat_numbers_mean_other_levels() -> None:
    names = {
        "decoder.upsamples.1.residual.0.gamma": "decoder.up_blocks.0.resnets.1.norm1.gamma",
        "decoder.upsamples.2.time_conv.bias": "decoder.up_blocks.0.upsamplers.0.time_conv.bias",
        "decoder.upsamples.3.shortcut.weight": "decoder.up_blocks.1.resnets.0.conv_shortcut.weight",
    }
    assert {original: vae_to_library(original, 1) for original in names} == names
    assert {vae_to_original(ours, 1): ours for ours in names.values()} == names


def test_a_name_outside_the_architecture_is_a_key_error() -> None:
    names = ("blocks.0.self_attn.r_proj.weight", "llm_adapter.embed.weight", "weight", "")
    for name in names:
        with pytest.raises(KeyError):
            transformer_to_library(name)
        with pytest.raises(KeyError):
            vae_to_library(name, 2)

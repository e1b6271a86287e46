"""LoRAs made for another number of transformer blocks."""

import pytest

from model.errors import LoraUnusable
from model.files.lora.depth import block_of, match_depth


def stems(*blocks: int) -> list[str]:
    return [f"lora_unet_blocks_{block}_cross_attn_q_proj" for block in blocks]


def test_the_block_is_read_from_every_layout() -> None:
    wanted = {
        "lora_unet_blocks_7_cross_attn_q_proj": 7,
        "diffusion_model.blocks.12.mlp.layer1": 12,
        "transformer.transformer_blocks.3.attn1.to_q": 3,
        "lycoris_transformer_blocks_3_attn1_to_q": 3,
        "blocks.0.mlp.layer1": 0,
        "lora_unet_llm_adapter_blocks_2_mlp_0": None,
        "text_conditioner.blocks.1.mlp.0": None,
        "lora_te_layers_3_mlp_up_proj": None,
        "lora_unet_input_blocks_1_1_proj_in": None,
        "lora_unet_double_blocks_3_img_attn_proj": None,
    }
    assert {stem: block_of(stem) for stem in wanted} == wanted


def test_28_blocks_are_mapped_to_40_as_published() -> None:
    match = match_depth(stems(0, 14, 27), 40)
    assert match.new_blocks is not None
    assert [match.new_blocks[block] for block in (0, 2, 14, 27)] == [0, 3, 20, 39]
    empty = set(range(40)) - set(match.new_blocks)
    assert empty == {2, 5, 8, 11, 14, 17, 21, 24, 27, 30, 33, 36}
    assert len(match.new_blocks) == 28
    assert "28" in (match.warning or "")


def test_files_for_this_depth_are_taken_as_they_are() -> None:
    for depth, highest in ((28, 27), (28, 3), (40, 39), (40, 28), (52, 40), (6, 5)):
        match = match_depth(stems(*range(highest + 1)), depth)
        assert (match.new_blocks, match.warning) == (None, None), (depth, highest)
    assert match_depth(["lora_te_layers_3_mlp_up_proj"], 28).warning is None


def test_deeper_files_and_unpublished_mappings_are_refused() -> None:
    for depth, highest, made_for in (
        (28, 28, 40),
        (28, 45, 52),
        (40, 40, 52),
        (52, 27, 28),
        (52, 39, 40),
    ):
        with pytest.raises(LoraUnusable, match=f"is made for {made_for} transformer blocks"):
            match_depth(stems(0, highest), depth)
    with pytest.raises(LoraUnusable, match=r"is made for 7 .* has 6: lora_unet_blocks_6_"):
        match_depth(stems(*range(7)), 6)


def test_a_file_that_fills_the_first_blocks_of_another_depth_gets_a_warning() -> None:
    """A published depth is the next one above; of other depths, the file shows the depth."""
    warning = match_depth(stems(*range(6)), 7).warning
    assert warning is not None
    assert "first 6 of 7" in warning
    for blocks in ((0,), (5,), (0, 2, 4)):
        assert match_depth(stems(*blocks), 7).warning is None, blocks

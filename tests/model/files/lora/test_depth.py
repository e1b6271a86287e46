"""LoRAs made for another number of transformer blocks."""

import pytest

from model.errors import LoraUnusable
from model.files.lora.depth import block_of, match_depth, stated_depth


def stems(*blocks: int) -> list[str]:
    return [f"lora_unet_blocks_{block}_cross_attn_q_proj" for block in blocks]


def test_the_block_is_read_from_every_layout() -> None:
    wanted = {
        "lora_unet_blocks_7_cross_attn_q_proj": 7,
        "diffusion_model.blocks.12.mlp.layer1": 12,
        "transformer.transformer_blocks.3.attn1.to_q": 3,
        "lycoris_transformer_blocks_3_attn1_to_q": 3,
        "blocks.0.mlp.layer1": 0,
        "diffusion_model_blocks_3_mlp_layer1": 3,
        "model_diffusion_model_blocks_3_mlp_layer1": 3,
        "net_blocks_3_mlp_layer1": 3,
        "pipe_dit_blocks_3_mlp_layer1": 3,
        "transformer_transformer_blocks_3_attn1_to_q": 3,
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


def test_a_file_that_changes_few_blocks_may_be_for_another_depth() -> None:
    """Its highest block does not show the depth; only blocks up to the end of one do."""
    for depth, highest, made_for in ((52, 0, 28), (52, 26, 28), (52, 30, 40)):
        match = match_depth(stems(0, highest), depth)
        assert match.new_blocks is None
        assert match.warning == (
            f"It changes no transformer block after {highest + 1} of {depth}; it may be made for a "
            f"model of {made_for} blocks."
        )
    assert "seems to be made for 28" in (match_depth(stems(0, 5), 40).warning or "")
    assert "is made for 28" in (match_depth(stems(0, 27), 40).warning or "")


def test_the_depth_that_the_metadata_says_goes_before_the_blocks() -> None:
    studio = {"ss_network_args": '{"algo": "lokr", "base_num_blocks": 40}'}
    for metadata in (studio, {"ss_base_model_version": "anima-40b"}):
        stated = stated_depth(metadata)
        assert stated == 40
        assert match_depth(stems(0, 5), 40, stated) == match_depth(stems(0, 39), 40)
        with pytest.raises(LoraUnusable, match="is made for 40 transformer blocks"):
            match_depth(stems(0, 5), 52, stated)
        with pytest.raises(LoraUnusable, match=r"contradicts itself: .* 40 transformer blocks"):
            match_depth(stems(45), 52, stated)
    assert match_depth(stems(0, 5), 40, 28).new_blocks is not None
    for text in ("anima", "anima_2840b", "anima 40bit", "v1.28", "anima-v28"):
        assert stated_depth({"ss_base_model_version": text}) is None, text


def test_a_version_in_the_name_of_a_file_is_no_depth() -> None:
    for name in ("animeMix_v40b", "anima_ep40-L.safetensors", "kirazuri_52l", "anima-40b"):
        for field in ("ss_sd_model_name", "modelspec.base_model"):
            assert stated_depth({field: name}) is None, (field, name)
    assert stated_depth({"ss_base_model_version": "animeMix_v40b"}) is None


def test_a_file_that_fills_the_first_blocks_of_another_depth_gets_a_warning() -> None:
    """A published depth is the next one above; of other depths, the file shows the depth."""
    warning = match_depth(stems(*range(6)), 7).warning
    assert warning is not None
    assert "first 6 of 7" in warning
    for blocks in ((0,), (5,), (0, 2, 4)):
        assert match_depth(stems(*blocks), 7).warning is None, blocks

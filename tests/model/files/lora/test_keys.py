"""Parsing LoRA keys: which key means which weight, and which keys are refused."""

from pathlib import Path
from typing import Any

import pytest

from model.errors import LoraUnusable
from model.files.lora.keys import split_key, summarise
from model.files.lora.plan import LoraChange, LoraContents, plan_changes
from model.files.lora.targets import LoraTarget, stem_table
from model.files.safetensors_header import StoredTensor, first_keys

Q = LoraTarget(
    "transformer", "transformer_blocks.0.attn1.to_q", "blocks.0.self_attn.q_proj", (12, 8)
)
OUT = LoraTarget(
    "transformer", "transformer_blocks.0.attn1.to_out.0", "blocks.0.self_attn.output_proj", (8, 12)
)
EMBED = LoraTarget(
    "transformer", "patch_embed.proj", "x_embedder.proj.1", (12, 64), dropped_columns=4
)
ADAPTER = LoraTarget(
    "adapter", "blocks.0.self_attn.q_proj", "llm_adapter.blocks.0.self_attn.q_proj", (6, 6)
)
QWEN = LoraTarget("text_encoder", "layers.0.mlp.up_proj", "layers.0.mlp.up_proj", (10, 6))
TABLE = stem_table([Q, OUT, EMBED, ADAPTER, QWEN])


def entries(**shapes: tuple[int, ...]) -> dict[str, StoredTensor]:
    """float32 tensors of these shapes; `__` in a name means a dot."""
    return {
        key: StoredTensor(Path("a.safetensors"), key, "F32", shape, 0, 0)
        for key, shape in ((name.replace("__", "."), shape) for name, shape in shapes.items())
    }


def planned(tensors: dict[str, StoredTensor]) -> list[LoraChange]:
    return plan_changes(LoraContents(tensors), TABLE).changes


def pair(stem: str, target: LoraTarget, rank: int = 2) -> dict[str, Any]:
    rows, columns = target.shape
    return {f"{stem}.lora_down.weight": (rank, columns), f"{stem}.lora_up.weight": (rows, rank)}


STEMS = [
    ("diffusion_model.blocks.0.self_attn.q_proj", Q),
    ("model.diffusion_model.blocks.0.self_attn.q_proj", Q),
    ("net.blocks.0.self_attn.q_proj", Q),
    ("blocks.0.self_attn.q_proj", Q),
    ("base_model.model.blocks.0.self_attn.q_proj", Q),
    ("base_model.model.diffusion_model.blocks.0.self_attn.q_proj", Q),
    ("transformer.transformer_blocks.0.attn1.to_q", Q),
    ("transformer_blocks.0.attn1.to_q", Q),
    ("lora_unet_blocks_0_self_attn_q_proj", Q),
    ("lora_unet_blocks_0_self_attn_output_proj", OUT),
    ("lora_unet_transformer_blocks_0_attn1_to_out_0", OUT),
    ("lycoris_transformer_blocks_0_attn1_to_out_0", OUT),
    ("lycoris_blocks_0_self_attn_q_proj", Q),
    ("lora_transformer_transformer_blocks_0_attn1_to_q", Q),
    ("lora_unet_x_embedder_proj_1", EMBED),
    ("diffusion_model.llm_adapter.blocks.0.self_attn.q_proj", ADAPTER),
    ("lora_unet_llm_adapter_blocks_0_self_attn_q_proj", ADAPTER),
    ("text_conditioner.blocks.0.self_attn.q_proj", ADAPTER),
    ("text_encoders.qwen3_06b.transformer.model.layers.0.mlp.up_proj", QWEN),
    ("text_encoder.layers.0.mlp.up_proj", QWEN),
    ("lora_te_layers_0_mlp_up_proj", QWEN),
    ("lora_te1_layers_0_mlp_up_proj", QWEN),
]


def test_every_layout_of_names_leads_to_its_weight() -> None:
    found = []
    for stem, target in STEMS:
        (change,) = planned(entries(**pair(stem, target)))
        found.append((stem, change.target))
        assert change.method == "lora", stem
    assert found == STEMS


ROLES = [
    ("lora_A.weight", "down"),
    ("lora_B.weight", "up"),
    ("lora_A.default.weight", "down"),
    ("lora_B.my_adapter.weight", "up"),
    ("lora_down.weight", "down"),
    ("lora.up.weight", "up"),
    ("alpha", "alpha"),
    ("dora_scale", "dora_scale"),
    ("lora_magnitude_vector", "magnitude"),
    ("lora_magnitude_vector.default.weight", "magnitude"),
    ("lokr_w2_b", "lokr_w2_b"),
    ("hada_w1_a", "hada_w1_a"),
    ("oft_R.weight", "oft_r"),
    ("oft_R.default.weight", "oft_r"),
    ("oft_R.scaled_oft", "scaled_oft"),
    ("oft_embedding_R.weight", "oft_embedding_r"),
]


def test_the_ending_of_a_key_gives_the_role() -> None:
    found = [(end, split_key(f"blocks.0.mlp.{end}")) for end, _ in ROLES]
    assert found == [(end, ("blocks.0.mlp", role)) for end, role in ROLES]


def test_keys_with_other_endings_are_not_lora_keys() -> None:
    keys = ("blocks.0.weight", "alpha", ".alpha", "x.lora_mid.weight", "x.hada_t1", "x.lokr_t2")
    assert [key for key in keys if split_key(key) is not None] == []


def refused(**shapes: tuple[int, ...]) -> str:
    with pytest.raises(LoraUnusable) as caught:
        planned(entries(**shapes))
    return str(caught.value)


def test_keys_that_match_nothing_are_named() -> None:
    known = pair("lora_unet_blocks_0_self_attn_q_proj", Q)
    message = refused(**known, **pair("lora_unet_input_blocks_1_1_proj_in", Q))
    assert "matches nothing" in message
    assert "lora_unet_input_blocks_1_1_proj_in.lora_down.weight" in message
    assert "self_attn_q_proj" not in message
    for stray in (
        "lora_unet_blocks_0_self_attn_q_proj.hada_t1",
        "position_ids",
        "a.lora_mid.weight",
    ):
        assert stray in refused(**known, **{stray: (2, 2)})
    many = {f"x{i}.alpha": () for i in range(12)}
    assert "and 7 more" in refused(**many)


def test_a_block_that_the_model_does_not_have_is_refused() -> None:
    assert "blocks_7_" in refused(**pair("lora_unet_blocks_7_self_attn_q_proj", Q))


def test_the_text_encoder_of_another_model_is_refused() -> None:
    assert "lora_te2_" in refused(**pair("lora_te2_layers_0_mlp_up_proj", QWEN))


MISFITS: list[tuple[dict[str, tuple[int, ...]], str]] = [
    ({"up": (12, 2), "down": (2, 9)}, "does not fit"),
    ({"up": (12, 3), "down": (2, 8)}, "does not fit"),
    ({"up": (12, 0), "down": (0, 8)}, "does not fit"),
    ({"up": (12, 2, 1, 1), "down": (2, 8, 3, 3)}, "does not fit"),
    ({"up": (12, 2), "down": (2, 8), "alpha": (1, 1)}, "has shape"),
    ({"up": (12, 2)}, "incomplete set"),
    ({"alpha": ()}, "incomplete set"),
    ({"up": (12, 2), "down": (2, 8), "alpha": (2,)}, "has shape"),
    ({"up": (12, 2), "down": (2, 8), "dora_scale": (8,)}, "has shape"),
    ({"up": (12, 2), "down": (2, 8), "dora_scale": (8, 1)}, "has shape"),
]


def test_tensors_that_do_not_fit_are_named() -> None:
    ends = {"up": "lora_up.weight", "down": "lora_down.weight"}
    stem = "diffusion_model.blocks.0.self_attn.q_proj"
    wrong = []
    for shapes, reason in MISFITS:
        message = refused(**{f"{stem}.{ends.get(k, k)}": shape for k, shape in shapes.items()})
        if reason not in message or stem not in message:
            wrong.append((shapes, message))
    assert wrong == []


def test_a_lokr_must_give_the_weights_shape() -> None:
    stem = "lycoris_blocks_0_self_attn_q_proj"
    good = {f"{stem}.lokr_w1": (3, 2), f"{stem}.lokr_w2": (4, 4)}
    (change,) = planned(entries(**good))
    assert change.method == "lokr"
    assert "does not fit" in refused(**{**good, f"{stem}.lokr_w2": (4, 3)})
    assert "does not fit" in refused(**{**good, f"{stem}.lokr_w2": (4, 4, 1, 3)})
    assert "incomplete set" in refused(**{**good, f"{stem}.lokr_w1_a": (3, 2)})


def test_mixed_and_doubled_tensors_are_refused() -> None:
    stem = "blocks.0.self_attn.q_proj"
    both = {**pair(stem, Q), f"{stem}.lokr_w1": (3, 2), f"{stem}.lokr_w2": (4, 4)}
    assert "incomplete set" in refused(**both)
    assert "twice" in refused(**pair(stem, Q), **{f"{stem}.lora_A.weight": (2, 8)})
    assert "two names" in refused(**pair(stem, Q), **pair(f"net.{stem}", Q))
    assert "has no tensors" in refused()


def test_halves_of_two_adapters_are_refused() -> None:
    stem = "diffusion_model.blocks.0.self_attn.q_proj"
    for down, up in (
        ("lora_A__turbo__weight", "lora_B__other__weight"),
        ("lora_A__turbo__weight", "lora_B__weight"),
        ("lora_A__turbo", "lora_B__other"),
    ):
        with pytest.raises(LoraUnusable, match=rf"two adapters: .*{stem}"):
            planned(entries(**{f"{stem}.{down}": (2, 8), f"{stem}.{up}": (12, 2)}))
    same = {f"{stem}.lora_A.turbo.weight": (2, 8), f"{stem}.lora_B.turbo.weight": (12, 2)}
    assert planned(entries(**same))[0].target == Q


def test_quantised_tensors_are_refused() -> None:
    quantised = {
        key: StoredTensor(Path("a"), key, "F8_E4M3", entry.shape, 0, 0)
        for key, entry in entries(**pair("blocks.0.self_attn.q_proj", Q)).items()
    }
    with pytest.raises(LoraUnusable, match="F8_E4M3; weights must be F32, F16 or BF16"):
        planned(quantised)


def test_the_patch_embedding_fits_with_and_without_the_mask() -> None:
    stem = "lora_unet_x_embedder_proj_1"
    for columns in (64, 68):
        shapes = {f"{stem}.lora_down.weight": (2, columns), f"{stem}.lora_up.weight": (12, 2)}
        assert len(planned(entries(**shapes))) == 1, columns
    assert "does not fit" in refused(**{**shapes, f"{stem}.lora_down.weight": (2, 66)})


def test_one_name_for_two_weights_is_an_error() -> None:
    with pytest.raises(ValueError, match="names both"):
        stem_table([Q, LoraTarget("transformer", "other", Q.original, (1, 1))])


def test_a_file_is_described_by_its_keys() -> None:
    summary = summarise(
        entries(
            **pair("lora_unet_blocks_0_self_attn_q_proj", Q, rank=4),
            **pair("lora_unet_llm_adapter_blocks_0_self_attn_q_proj", ADAPTER),
            **pair("lora_te_layers_0_mlp_up_proj", QWEN),
            **{"lycoris_a.lokr_w1": (3, 2), "lycoris_a.lokr_w2": (4, 4)},
        )
    )
    assert (summary.method, summary.rank) == ("lokr + lora", 4)
    assert summary.parts == ("transformer", "adapter", "text_encoder")
    dora = summarise(entries(**pair("a", Q), **{"a.dora_scale": (12, 1)}))
    assert (dora.method, dora.parts) == ("dora", ("transformer",))
    assert summarise(entries(**{"a.lokr_w1": (3, 2), "a.lokr_w2": (4, 4)})).rank is None
    with pytest.raises(LoraUnusable, match=r"an unknown LoRA method: net\.x\.weight"):
        summarise(entries(**{"net.x.weight": (3, 2)}))


def test_long_lists_and_names_are_cut() -> None:
    assert first_keys(["a", "b"]) == "a, b"
    assert first_keys(["x" * 1000]) == "x" * 200

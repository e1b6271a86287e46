"""Plans of whole files: names of every writer, files of the field, and parts that do not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.card import load_card, shipped_folder
from model.errors import LoraUnusable
from model.files.layouts import locate_parts
from model.files.lora.folder import LoraFolder, check_for_checkpoint, read_lora
from model.files.lora.plan import LoraChange, LoraContents, plan_changes
from model.files.lora.targets import LoraTarget, read_targets, stem_table
from model.files.safetensors_header import StoredTensor
from tests.support.paths import DATA

FIELD = DATA / "field/lora"
CARD = load_card("kirazuri-tiny")
K_PROJ = "blocks.0.cross_attn.k_proj"


@pytest.fixture(scope="module")
def table() -> dict[str, LoraTarget]:
    """The names of kirazuri-tiny."""
    parts = locate_parts(CARD.files, shipped_folder(CARD))
    return stem_table(read_targets(parts, latent_channels=CARD.transformer.latent_channels))


def entries(**shapes: tuple[int, ...]) -> LoraContents:
    """float32 tensors of these shapes."""
    return LoraContents(
        {key: StoredTensor(Path("a"), key, "F32", shape, 0, 0) for key, shape in shapes.items()}
    )


READ = {
    "UPPER.SAFETENSORS": ("lora", None),
    "conv1x1-4d.safetensors": ("lora", None),
    "diffusers-meta-alpha16-r4.safetensors": ("lora", 16.0),
    "dora-cols.safetensors": ("lora", None),
    "dora-rows.safetensors": ("lora", None),
    "peft/adapter_model.safetensors": ("lora", 16.0),
    "simpletuner-779.safetensors": ("lora", None),
    "unet-prefix-peft.safetensors": ("lora", None),
    "【画风】wlop.safetensors": ("lora", None),
}
REFUSED = {
    "alpha-2d.safetensors": r"k_proj\.alpha has shape \(1, 1\)",
    "fp8-weights.safetensors": "is F8_E4M3",
    "lycoris-norm.safetensors": r"q_norm of shape \(48,\): .*w_norm \(32,\)",
    "onetrainer-bundle-emb.safetensors": r"matches nothing .*bundle_emb\.mytoken\.qwen_out",
}


def test_files_of_the_field_are_read(table: dict[str, LoraTarget]) -> None:
    found = {}
    for name in READ:
        (change,) = plan_changes(read_lora(FIELD / name), table).changes
        assert change.target.original == K_PROJ, name
        found[name] = change.method, change.alpha
    assert found == READ


def test_files_of_the_field_are_refused_with_the_reason(table: dict[str, LoraTarget]) -> None:
    for name, reason in REFUSED.items():
        with pytest.raises(LoraUnusable, match=reason):
            plan_changes(read_lora(FIELD / name), table)


@pytest.mark.parametrize("name", ["alpha-2d.safetensors", "fp8-weights.safetensors"])
def test_faults_of_the_file_alone_are_found_without_a_checkpoint(name: str) -> None:
    with pytest.raises(LoraUnusable):
        plan_changes(read_lora(FIELD / name), None)


STEMS = {
    "transformer.base_model.model.transformer_blocks.0.attn2.to_k": ".lora_{}.weight",
    "unet.blocks.0.cross_attn.k_proj": ".lora_{}.weight",
    "pipe.dit.blocks.0.cross_attn.k_proj": ".lora_{}.default.weight",
    "module.blocks.0.cross_attn.k_proj": ".lora_{}.weight",
    "unet.base_model.model.blocks.0.cross_attn.k_proj": ".lora_{}.weight",
    "diffusion_model._orig_mod.blocks.0.cross_attn.k_proj": ".lora_{}.weight",
    "blocks.0.cross_attn.k_proj": ".lora_{}",
    "base_model.model.blocks.0.cross_attn.k_proj": ".lora_{}.default",
    "transformer_blocks.0.attn2.processor.to_k": "_lora.{}.weight",
    "transformer_blocks.0.attn2.to_k": ".lora_linear_layer.{}.weight",
    "transformer.transformer_blocks.0.attn2.to_k": ".lora.{}.weight",
}


def test_names_of_every_writer_lead_to_the_weight(table: dict[str, LoraTarget]) -> None:
    wrong = []
    for stem, end in STEMS.items():
        sides = ("A", "B") if "lora_{}" in end else ("down", "up")
        down, up = (stem + end.format(side) for side in sides)
        try:
            (change,) = plan_changes(entries(**{down: (4, 128), up: (192, 4)}), table).changes
        except LoraUnusable as exc:
            wrong.append((stem, str(exc)))
            continue
        if change.target.original != K_PROJ:
            wrong.append((stem, change.target.original))
    assert wrong == []


def test_biases_and_norms_and_the_embedding_are_targets(table: dict[str, LoraTarget]) -> None:
    prefix = "diffusion_model."
    shapes = {
        f"{prefix}blocks.0.self_attn.q_norm.diff": (48,),
        f"{prefix}t_embedding_norm.w_norm": (192,),
        f"{prefix}llm_adapter.blocks.0.mlp.0.diff_b": (256,),
        f"{prefix}llm_adapter.blocks.0.mlp.0.lora_down.weight": (4, 128),
        f"{prefix}llm_adapter.blocks.0.mlp.0.lora_up.weight": (256, 4),
        f"{prefix}llm_adapter.embed.lora_down.weight": (4, 128),
        f"{prefix}llm_adapter.embed.lora_up.weight": (225, 4),
    }
    plan = plan_changes(entries(**shapes), table)
    assert sorted((c.method, c.target.original) for c in plan.changes) == [
        ("bias", "llm_adapter.blocks.0.mlp.0"),
        ("diff", "blocks.0.self_attn.q_norm"),
        ("lora", "llm_adapter.blocks.0.mlp.0"),
        ("lora", "llm_adapter.embed"),
        ("norm", "t_embedding_norm"),
    ]
    for key, shape in ((f"{prefix}{K_PROJ}.diff_b", (192,)), (f"{prefix}{K_PROJ}.w_norm", (192,))):
        with pytest.raises(LoraUnusable, match="does not fit"):
            plan_changes(entries(**{key: shape}), table)


def test_ia3_vectors_must_have_the_length_of_their_side(
    table: dict[str, LoraTarget], tmp_path: Path
) -> None:
    stem = f"lora_unet_{K_PROJ.replace('.', '_')}"
    for length, on_input, is_right in (
        (192, 0, True),
        (128, 1, True),
        (128, 0, False),
        (128, 1.0, True),
        (192, 1.0, False),
    ):
        path = tmp_path / "a.safetensors"
        save_file(
            {f"{stem}.weight": torch.ones(length), f"{stem}.on_input": torch.tensor(on_input)}, path
        )
        contents = read_lora(path)
        if is_right:
            (change,) = plan_changes(contents, table).changes
            assert change.method == "ia3"
        else:
            with pytest.raises(LoraUnusable, match="does not fit"):
                plan_changes(contents, table)


def test_names_with_too_many_dots_mean_the_same_weights(table: dict[str, LoraTarget]) -> None:
    """As older and newer converters of sd-scripts and musubi-tuner write them."""
    wanted = {
        "diffusion_model.llm.adapter.blocks.0.cross.attn.q_proj": "adapter",
        "diffusion_model.blocks.0.adaln_modulation.self_attn.1": "transformer",
        "diffusion_model.t.embedder.1.linear_1": "transformer",
        "diffusion_model.blocks.0.cross_attn.output.proj": "transformer",
        "text_encoder.qwen3.layers.0.self_attn.q_proj": "text_encoder",
        "text_encoders.qwen3_06b.transformer.model.layers.0.mlp.down.proj": "text_encoder",
    }
    kohya = {
        stem.replace("diffusion_model.", "lora_unet_")
        .replace("text_encoder.qwen3.", "lora_te_")
        .replace("text_encoders.qwen3_06b.transformer.model.", "lora_te_")
        .replace(".", "_"): stem
        for stem in wanted
    }
    for flat, stem in kohya.items():
        target = table[flat]
        rows, columns = target.shape
        columns += target.dropped_columns
        shapes = {f"{stem}.lora_A.weight": (2, columns), f"{stem}.lora_B.weight": (rows, 2)}
        (change,) = plan_changes(entries(**shapes), table).changes
        assert (change.target, change.target.part) == (target, wanted[stem])
        twice = shapes | {
            f"{flat}.lora_down.weight": (2, columns),
            f"{flat}.lora_up.weight": (rows, 2),
        }
        with pytest.raises(LoraUnusable, match="under two names"):
            plan_changes(entries(**twice), table)
    mangled = {
        f"{stem}.{end}": shape
        for stem in (
            "diffusion_model.t.embedder.1.linear_1",
            "diffusion_model.t_embedder.1.linear.1",
        )
        for end, shape in (("lora_A.weight", (2, 8)), ("lora_B.weight", (8, 2)))
    }
    with pytest.raises(LoraUnusable, match="a tensor twice"):
        plan_changes(entries(**mangled), table)


def test_misfits_may_be_left_out_and_are_named(table: dict[str, LoraTarget]) -> None:
    contents = read_lora(FIELD / "onetrainer-bundle-emb.safetensors")
    plan = plan_changes(contents, table, skips_misfits=True)
    assert [change.target.original for change in plan.changes] == [K_PROJ]
    assert plan.left_out == ("bundle_emb.mytoken.qwen_out",)
    plan = plan_changes(read_lora(FIELD / "lycoris-norm.safetensors"), table, skips_misfits=True)
    assert plan.left_out == ("lora_unet_blocks_0_self_attn_q_norm.w_norm",)
    with pytest.raises(LoraUnusable, match="has nothing that fits"):
        plan_changes(read_lora(FIELD / "fp8-weights.safetensors"), table, skips_misfits=True)


def test_the_folder_lists_what_is_left_out() -> None:
    check = check_for_checkpoint(CARD, None, skips_misfits=True)
    folder = LoraFolder(FIELD, check)
    folder.refresh()
    assert folder.files["onetrainer-bundle-emb"].left_out == ("bundle_emb.mytoken.qwen_out",)


def test_a_lora_of_28_blocks_changes_the_old_blocks_of_40() -> None:
    targets = [
        LoraTarget("transformer", f"transformer_blocks.{block}.attn1.to_q",
                   f"blocks.{block}.self_attn.q_proj", (8, 8))
        for block in range(40)
    ]  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {}
    for block in (0, 2, 14, 27):
        stem = f"lora_unet_blocks_{block}_self_attn_q_proj"
        shapes |= {f"{stem}.lora_down.weight": (2, 8), f"{stem}.lora_up.weight": (8, 2)}
    plan = plan_changes(entries(**shapes), stem_table(targets))

    def moved(change: LoraChange) -> tuple[str, str]:
        return change.keys["up"].split("_")[3], change.target.module.split(".")[1]

    assert sorted(map(moved, plan.changes)) == [("0", "0"), ("14", "20"), ("2", "3"), ("27", "39")]
    assert plan.depth_warning is not None

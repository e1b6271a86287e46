"""What a file with `oft_R` says about its rotations, and which files are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model.errors import LoraUnusable
from model.files.lora.folder import LoraFolder, read_lora
from model.files.lora.plan import LoraChange, LoraContents, plan_changes
from model.files.lora.rotation import Rotation
from model.files.lora.targets import LoraTarget, Shape, stem_table
from model.files.safetensors_header import StoredTensor

Q = LoraTarget(
    "transformer", "transformer_blocks.0.attn1.to_q", "blocks.0.self_attn.q_proj", (12, 8)
)
PATCH = LoraTarget(
    "transformer", "patch_embed.proj", "x_embedder.proj.1", (12, 64), dropped_columns=4
)
TABLE = stem_table([Q, PATCH])
STEM = "transformer.transformer_blocks.0.attn1.to_q"
ONETRAINER = {"ot_branch": "master", "ot_revision": "23df3832"}
PEFT: dict[str, Any] = {
    "peft_type": "OFT",
    "use_cayley_neumann": True,
    "num_cayley_neumann_terms": 5,
    "peft_version": "0.21.2",
    "coft": False,
    "eps": 6e-5,
}
NOW = (1.0, 2.0, 2.0, 2.0, 1.0)


def planned(
    *,
    metadata: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    table: dict[str, LoraTarget] | None = TABLE,
    stem: str = STEM,
    shape: Shape = (2, 6),
    beside: str | None = None,
) -> list[LoraChange]:
    """The changes of a file with `oft_R` of this shape, and another tensor with the ending."""
    shapes = {f"{stem}.oft_R.weight": shape}
    if beside:
        shapes[f"{stem}.{beside}"] = (12, 1)
    tensors = {key: StoredTensor(Path("a"), key, "F32", s, 0, 0) for key, s in shapes.items()}
    return plan_changes(LoraContents(tensors, metadata or {}, config), table).changes


STATED: list[tuple[dict[str, str], dict[str, Any] | None, Rotation]] = [
    (ONETRAINER, None, Rotation(NOW)),
    (ONETRAINER | {"ot_config": '{"oft_coft": false}'}, None, Rotation(NOW)),
    ({}, PEFT, Rotation(NOW)),
    ({}, PEFT | {"r": 0, "peft_version": "0.18.0"}, Rotation(NOW)),
    ({}, PEFT | {"peft_version": "1.0.0.dev0@0a1b"}, Rotation(NOW)),
    ({}, PEFT | {"peft_version": None}, Rotation((1.0, 2.0, 2.0, 2.0, 2.0))),
    ({}, PEFT | {"num_cayley_neumann_terms": 1}, Rotation((1.0,))),
    ({}, PEFT | {"num_cayley_neumann_terms": 2}, Rotation((1.0, 2.0))),
    ({}, PEFT | {"num_cayley_neumann_terms": 3}, Rotation((1.0, 2.0, 2.0, 1.0))),
    ({}, PEFT | {"num_cayley_neumann_terms": 6}, Rotation((*NOW[:4], 2.0, 1.0))),
    ({}, PEFT | {"use_cayley_neumann": False, "peft_version": "0.18.0.dev0"}, Rotation(None)),
    ({}, PEFT | {"coft": True}, Rotation(NOW, 6e-5)),
]


def test_the_formula_is_the_one_that_is_stated() -> None:
    found = []
    for metadata, config, _ in STATED:
        (change,) = planned(metadata=metadata, config=config)
        assert change.method == "peft_oft"
        found.append((metadata, config, change.rotation))
    assert found == STATED


REFUSED: list[tuple[dict[str, str], dict[str, Any] | None, str]] = [
    ({}, None, "it has neither"),
    ({"ot_revision": "23df3832"}, None, "it has neither"),
    (ONETRAINER, PEFT, "it has both"),
    ({"ot_branch": "cans"}, None, "ot_branch is 'cans', not 'master'"),
    (ONETRAINER | {"ot_config": '{"oft_cans": true}'}, None, "not supported: oft_cans"),
    (ONETRAINER | {"ot_config": '{"oft_coft": true}'}, None, "not supported: oft_coft"),
    (ONETRAINER | {"ot_config": "["}, None, "ot_config that cannot be read"),
    ({}, PEFT | {"peft_type": "BOFT"}, "is not of OFT"),
    ({}, {}, "is not of OFT"),
    ({}, PEFT | {"fan_in_fan_out": True}, "transposed"),
    ({}, PEFT | {"use_cayley_neumann": None}, "without use_cayley_neumann"),
    ({}, PEFT | {"num_cayley_neumann_terms": None}, "num_cayley_neumann_terms None"),
    ({}, PEFT | {"num_cayley_neumann_terms": 0}, "must be 1 to 64"),
    ({}, PEFT | {"num_cayley_neumann_terms": 65}, "must be 1 to 64"),
    ({}, PEFT | {"num_cayley_neumann_terms": True}, "must be 1 to 64"),
    ({}, PEFT | {"peft_version": "0.17.2.dev0@abc"}, "formula is not known: 0.17.2.dev0"),
    ({}, PEFT | {"peft_version": "0.18.0.dev0"}, "formula is not known: 0.18.0.dev0"),
    ({}, PEFT | {"peft_version": "0.18.0rc1"}, "formula is not known"),
    ({}, PEFT | {"peft_version": "main"}, "formula is not known: main"),
    ({}, PEFT | {"coft": True, "eps": None}, "without eps"),
    ({}, PEFT | {"coft": True, "eps": -1}, "without eps"),
]


@pytest.mark.parametrize("table", [TABLE, None])
def test_a_formula_that_is_not_known_is_refused(table: dict[str, LoraTarget] | None) -> None:
    wrong = []
    for metadata, config, reason in REFUSED:
        try:
            planned(metadata=metadata, config=config, table=table)
        except LoraUnusable as exc:
            if reason in str(exc):
                continue
        wrong.append((metadata, config))
    assert wrong == []


def test_blocks_must_fill_the_inputs_or_be_shared() -> None:
    right: list[Shape] = [(1, 28), (2, 6), (4, 1), (1, 6), (1, 1)]
    wrong: list[Shape] = [(3, 6), (2, 1), (1, 66), (1, 3), (0, 6), (2, 6, 2)]
    wrong_for_all: list[Shape] = [(1, 5), (8, 0), (6,)]
    for shape in right:
        assert len(planned(metadata=ONETRAINER, shape=shape)) == 1, shape
        planned(metadata=ONETRAINER, shape=shape, table=None)
    for shape in wrong + wrong_for_all:
        with pytest.raises(LoraUnusable, match="does not fit"):
            planned(metadata=ONETRAINER, shape=shape)
    for shape in wrong_for_all:
        with pytest.raises(LoraUnusable, match="does not fit any weight"):
            planned(metadata=ONETRAINER, shape=shape, table=None)


def test_the_names_of_all_formats_of_onetrainer_lead_to_the_weight() -> None:
    for stem in (
        STEM,
        "diffusion_model.blocks.0.self_attn.q_proj",
        "net.blocks.0.self_attn.q_proj",
        "blocks.0.self_attn.q_proj",
        "lora_unet_blocks_0_self_attn_q_proj",
        "lora_transformer_transformer_blocks_0_attn1_to_q",
    ):
        (change,) = planned(metadata=ONETRAINER, stem=stem)
        assert change.target == Q, stem


def test_the_patch_embedding_may_have_the_columns_of_the_mask() -> None:
    stem = "transformer.patch_embed.proj"
    for shape, columns in (((16, 6), 64), ((17, 6), 68), ((1, 136), 68)):
        (change,) = planned(metadata=ONETRAINER, stem=stem, shape=shape)
        assert change.columns == columns, shape


def test_tensors_of_other_methods_beside_rotations_are_refused() -> None:
    for end, reason in (
        ("dora_scale", "incomplete set"),
        ("initial_norm", "matches nothing|unknown"),
        ("oft_r", "unknown|matches nothing"),
        ("alpha", "incomplete set"),
    ):
        with pytest.raises(LoraUnusable, match=reason):
            planned(metadata=ONETRAINER, beside=end)
    tensors = {
        key: StoredTensor(Path("a"), key, "F32", shape, 0, 0)
        for key, shape in {
            f"{STEM}.oft_R.weight": (2, 6),
            "transformer.patch_embed.proj.lora_A.weight": (2, 64),
            "transformer.patch_embed.proj.lora_B.weight": (12, 2),
        }.items()
    }
    with pytest.raises(LoraUnusable, match="mixes oft_R with lora"):
        plan_changes(LoraContents(tensors, ONETRAINER), TABLE)


def test_the_mark_of_scaled_rotations_is_onetrainers_and_never_zero(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    for mark in (torch.tensor(True), torch.tensor(1.0), torch.tensor([1.0]).bfloat16()):
        tensors = {f"{STEM}.oft_R.weight": torch.ones(2, 6), f"{STEM}.oft_R.scaled_oft": mark}
        save_file(tensors, path, metadata=ONETRAINER)
        (change,) = plan_changes(read_lora(path), TABLE).changes
        assert change.keys.keys() == {"oft_r", "scaled_oft"}
    for zero in (torch.tensor(False), torch.tensor(0.0)):
        save_file(tensors | {f"{STEM}.oft_R.scaled_oft": zero}, path, metadata=ONETRAINER)
        with pytest.raises(LoraUnusable, match="scaled_oft, which is zero"):
            plan_changes(read_lora(path), TABLE)
    save_file(tensors, path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(PEFT), encoding="utf-8")
    with pytest.raises(LoraUnusable, match="scaled_oft, but also adapter_config"):
        plan_changes(read_lora(path), TABLE)


def test_the_folder_lists_rotations_as_oft(tmp_path: Path) -> None:
    tensors = {f"{STEM}.oft_R.weight": torch.ones(2, 6)}
    save_file(tensors, tmp_path / "turned.safetensors", metadata=ONETRAINER)
    save_file(tensors, tmp_path / "bare.safetensors")
    folder = LoraFolder(tmp_path)
    folder.refresh()
    assert (folder.files["turned"].method, folder.files["turned"].rank) == ("oft", None)
    assert "it has neither" in folder.refused["bare"]

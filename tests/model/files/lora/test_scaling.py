"""Alpha that is no tensor: in the metadata, or in peft's configuration next to the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model.errors import LoraUnusable
from model.files.lora.folder import read_lora
from model.files.lora.plan import LoraContents, plan_changes
from model.files.lora.targets import LoraTarget, stem_table
from model.files.safetensors_header import StoredTensor

K = LoraTarget(
    "transformer", "transformer_blocks.0.attn2.to_k", "blocks.0.cross_attn.k_proj", (12, 8)
)
QWEN = LoraTarget("text_encoder", "layers.0.mlp.up_proj", "layers.0.mlp.up_proj", (10, 6))
TABLE = stem_table([K, QWEN])
RANK = 4


STEM = "blocks.0.cross_attn.k_proj"
PREFIX = {
    "peft": f"base_model.model.{STEM}",
    "dotted": f"diffusion_model.{STEM}",
    "kohya": f"lora_unet_{STEM.replace('.', '_')}",
}


def contents(
    metadata: dict[str, str],
    config: dict[str, Any] | None = None,
    *,
    has_alpha: bool = False,
    layout: str = "dotted",
    shared: dict[str, Any] | None = None,
) -> LoraContents:
    shapes: dict[str, tuple[int, ...]] = {
        "lora_down.weight": (RANK, 8),
        "lora_up.weight": (12, RANK),
    }
    if has_alpha:
        shapes["alpha"] = ()
    tensors = {
        f"{PREFIX[layout]}.{end}": StoredTensor(
            Path("a"), f"{PREFIX[layout]}.{end}", "F32", s, 0, 0
        )
        for end, s in shapes.items()
    }
    return LoraContents(tensors, metadata, config, shared)


def kohya(alpha: str, rank: str, module: str | None = None) -> dict[str, str]:
    stated = {"ss_network_alpha": alpha, "ss_network_dim": rank}
    return stated | {"ss_network_module": module} if module else stated


def nested(**config: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps(config)}


diffusers = nested
PEFT = {"r": 4, "lora_alpha": 16}
X16 = {"r": 4, "lora_alpha": 1}


STATED: list[tuple[dict[str, str], dict[str, Any] | None, float | None]] = [
    ({}, None, None),
    ({"ss_network_dim": "4"}, None, None),
    (kohya("None", "4"), None, None),
    (kohya("4", "4"), None, None),
    (diffusers(**{"transformer.r": 4, "transformer.lora_alpha": 16}), None, 16),
    (diffusers(r=4, lora_alpha=16), None, 16),
    (diffusers(**{"text_encoder.r": 2, "text_encoder.lora_alpha": 9}), None, None),
    (diffusers(r=4, lora_alpha=16, use_rslora=True), None, 32),
    (
        diffusers(r=2, lora_alpha=1, rank_pattern={"to_k": 4}, alpha_pattern={"attn2.to_k": 6}),
        None,
        6,
    ),
    ({}, {"r": 4, "lora_alpha": 16}, 16),
    ({}, {"r": 4, "lora_alpha": 16, "alpha_pattern": {"cross_attn.k_proj": 3}}, 3),
    ({}, {"r": 4, "lora_alpha": 16, "alpha_pattern": {"o_k": 3, "^to_k": 3}}, 16),
    (kohya("4", "8"), {"r": 4, "lora_alpha": 16}, 16),
    # names of parts, flat and nested, and names of adapters
    (nested(transformer=PEFT), None, 16),
    (nested(transformer=PEFT, text_encoder={"r": 9, "lora_alpha": 1}), None, 16),
    (nested(text_encoder={"r": 9, "lora_alpha": 1}), None, None),
    (nested(default=PEFT), None, 16),
    ({"peft_config": json.dumps({"default": PEFT})}, None, 16),
    ({"peft_config": json.dumps({"transformer": {"default": PEFT}})}, None, 16),
    (nested(**{"dit.r": 4, "dit.lora_alpha": 16}), None, 16),
    (nested(**{"denoiser.r": 4, "denoiser.lora_alpha": 16}), None, 16),
    (nested(**{"transformer_2.rank": 4, "transformer_2.lora_alpha": 16}), None, 16),
    (nested(**{"unknown.r": 4, "unknown.lora_alpha": 16}), None, 16),
    (nested(**PEFT, eva_config={"rho": 2.0, "alpha": 9}), None, 16),
    # entries of the metadata themselves
    ({"lora_alpha": "16", "r": "4"}, None, 16),
    ({"lora_alpha": "16", "lora_rank": "4"}, None, 16),
    ({"alpha": "16.0", "rank": "4"}, None, 16),
    ({"network_alpha": "16", "network_dim": "4"}, None, 16),
    ({"lora_alpha": "16"}, None, 16),
    ({"transformer.lora_alpha": "16", "transformer.r": "4"}, None, 16),
    ({"text_encoder.lora_alpha": "16", "text_encoder.r": "9"}, None, None),
    ({"lora_alpha": "16", "r": "4", "use_rslora": "True"}, None, 32),
    ({"lora_alpha": "1", "alpha_pattern": json.dumps({"k_proj": 16})}, None, 16),
    ({"rank": "4"}, None, None),
    # an alpha in an unknown place that is the rank is harmless
    ({"training_config": json.dumps({"network": {"linear": 4, "alpha": 4}})}, None, None),
    ({"ss_network_args": json.dumps({"conv_alpha": "1"})}, None, None),
    # only settings of adapters count
    ({"ss_tag_frequency": json.dumps({"1_alpha": {"alpha": 1, "rank": 9}})}, None, None),
    ({"training_config": json.dumps({"ema": {"alpha": 0.999}, "lora_alpha": 4})}, None, None),
    ({"loss": json.dumps({"alpha": 0.5})}, None, None),
    ({"ss_optimizer_args": "rank=128 scaling=0.25 alpha=0.9"}, None, None),
    ({"ss_datasets": json.dumps([{"tag_frequency": {"alpha": 1, "dim": 2}}])}, None, None),
    ({"prompt": json.dumps({"1": {"inputs": {"alpha": 8, "rank": 4}}})}, None, None),
    ({"graph": json.dumps({"1": {"class_type": "L", "inputs": {"alpha": 8, "r": 4}}})}, None, None),
    ({"description": "alpha: 3, the first of the wolves"}, None, None),
    ({"config": "[ema]\nalpha = 0.9\n[adapter]\nrank = 4\nalpha = 4"}, None, None),
    ({"config": "ema:\n  alpha: 0.9\nnetwork:\n  rank: 4\n  alpha: 4"}, None, None),
    ({"ss_network_args": "conv_alpha=1 rank=4"}, None, None),
    # patterns of peft: regular expressions for the whole name or its end after a dot
    ({}, X16 | {"alpha_pattern": {r"cross_attn\.(k|q)_proj": 16}}, 16),
    ({}, X16 | {"alpha_pattern": {r".*k_proj": 16}}, 16),
    ({}, X16 | {"alpha_pattern": {r"blocks\.\d+\.cross_attn\.k_proj": 16}}, 16),
    ({}, X16 | {"alpha_pattern": {r"^blocks\.0\..*": 16}}, 16),
    ({}, X16 | {"alpha_pattern": {r"(.*\.)?k_proj": 16}}, 16),
    ({}, X16 | {"alpha_pattern": {r"proj": 16, r"k_pro": 16, r"^k_proj": 16}}, 1),
    ({}, X16 | {"alpha_pattern": {r"q_proj": 2, r".*_proj": 16, "k_proj": 3}}, 16),
    ({}, {"r": 8, "lora_alpha": 16, "rank_pattern": {r".*k_proj": 4}}, 16),
    # truth as JSON and as text
    ({}, PEFT | {"use_rslora": 1}, 32),
    ({}, PEFT | {"use_rslora": "true"}, 32),
    ({}, PEFT | {"use_rslora": "false", "use_dora": None, "layer_replication": None}, 16),
    ({}, PEFT | {"peft_type": "LORA", "use_qalora": False, "arrow_config": None}, 16),
]


LAYOUTS: list[tuple[str, dict[str, str], float | None]] = [
    # Trainers that save with peft store no alpha tensor and do not fold it.
    ("peft", kohya("16", "4", "musubi_tuner.networks.peft_lora"), 16),
    ("peft", kohya("16.0", "4"), 16),
    # Others store it; their converters fold it into the weights.
    ("dotted", kohya("1", "4", "networks.lora_wan"), None),
    ("dotted", kohya("1", "4", "networks.lora_anima"), None),
    ("dotted", kohya("Dynamic", "Dynamic", "networks.lora_anima"), None),
    ("kohya", kohya("4", "4", "networks.lora_anima"), None),
]


def test_alpha_of_kohyas_metadata_is_what_its_writers_mean() -> None:
    found = []
    for layout, metadata, _ in LAYOUTS:
        (change,) = plan_changes(contents(metadata, layout=layout), TABLE).changes
        found.append((layout, metadata, change.alpha))
    assert found == LAYOUTS
    for layout, metadata in (
        ("kohya", kohya("1", "4", "networks.lora_anima")),
        ("dotted", kohya("1", "4")),
        ("dotted", kohya("Dynamic", "Dynamic")),
    ):
        with pytest.raises(LoraUnusable, match=r"contradicts itself: .* no tensor of alpha"):
            plan_changes(contents(metadata, layout=layout), TABLE)


def test_one_statement_gives_alpha() -> None:
    found = []
    for metadata, config, _ in STATED:
        (change,) = plan_changes(contents(metadata, config), TABLE).changes
        found.append((metadata, config, change.alpha))
    assert found == STATED


def test_a_tensor_goes_before_every_statement() -> None:
    unclear = {"lora_adapter_metadata": "[", "config": json.dumps({"alpha": 3})}
    for metadata in (
        kohya("16", "4"),
        kohya("16", "8"),
        kohya("Dynamic", "Dynamic"),
        {"ss_network_alpha": "16"},
        {"ss_network_alpha": "[1, 2]"},
        unclear,
    ):
        (change,) = plan_changes(contents(metadata, has_alpha=True), TABLE).changes
        assert change.alpha is None
        assert "alpha" in change.keys


REFUSED: list[tuple[dict[str, str], dict[str, Any] | None, str]] = [
    (kohya("16", "8"), None, "contradicts itself: ss_network_alpha is '16'"),
    ({"ss_network_alpha": "16"}, None, "contradicts itself: ss_network_alpha is '16'"),
    ({"alpha": "16"}, {"r": 4, "lora_alpha": 8}, "contradicts itself about alpha"),
    ({"alpha": "16", "lora_alpha": "8"}, None, "has several of"),
    (nested(transformer=PEFT, transformer_2=X16), None, "contradicts itself"),
    (nested(transformer=PEFT, unknown=X16), None, "contradicts itself"),
    ({"lora_alpha": "16", "rank": "8"}, None, "says rank 8"),
    ({"config": json.dumps({"r": 4, "lora_alpha": 16})}, None, "what config says of alpha"),
    ({"ss_network_args": json.dumps({"alpha": "16"})}, None, "what ss_network_args says"),
    ({"my_alpha": "16"}, None, "what my_alpha says"),
    ({"training_args": "{'r': 4, 'lora_alpha': 16}"}, None, "what training_args says"),
    ({"training_args": "LoraConfig(r=4, lora_alpha=16)"}, None, "what training_args says"),
    ({"config": "[adapter]\nrank = 4\nalpha = 16"}, None, "what config says"),
    ({"config": "network:\n  linear: 4\n  alpha: 16"}, None, "what config says"),
    ({"ss_network_args": "alpha=16 rank=4"}, None, "what ss_network_args says"),
    ({"ss_network_args": json.dumps(["alpha=16"])}, None, "what ss_network_args says"),
    ({"command": "train.py --lora_alpha 16 --x"}, None, "what command says"),
    ({"loraAlpha": "16"}, None, "what loraAlpha says"),
    ({"argv": json.dumps(["--network_alpha", "16"])}, None, "what argv says"),
    ({"c": json.dumps({"loraAlpha": 16})}, None, "what c says"),
    ({"c": json.dumps({"network": {"type": "lora", "alpha": 16}})}, None, "what c says"),
    ({"c": json.dumps({"rank": 4, "scaling": 4.0})}, None, "what c says"),
    ({}, PEFT | {"use_rslora": "yes"}, "with use_rslora 'yes'"),
    ({}, PEFT | {"use_dora": True}, "has no scales of DoRA"),
    ({}, PEFT | {"layer_replication": [[0, 4], [2, 5]]}, "trained with layer_replication"),
    ({}, PEFT | {"alora_invocation_tokens": [1]}, "trained with alora_invocation_tokens"),
    ({}, PEFT | {"peft_type": "LORA", "use_qalora": True}, "trained with use_qalora"),
    ({}, PEFT | {"peft_type": "LORA", "use_new_thing": 1}, "trained with use_new_thing"),
    ({}, PEFT | {"peft_type": "VERA"}, "says VERA"),
    ({}, PEFT | {"alpha_pattern": {"(": 3}}, "cannot be read"),
    ({}, PEFT | {"alpha_pattern": {"(a+)+": 3}}, "too complex"),
    ({}, PEFT | {"alpha_pattern": {".*.*.*x": 3}}, "too complex"),
    ({}, PEFT | {"alpha_pattern": {".?" * 20: 3}}, "too complex"),
    (diffusers(r=4), None, "without exactly one alpha and rank"),
    (diffusers(r=4, lora_alpha="x"), None, "instead of a number"),
    (diffusers(r=4, lora_alpha=1, rank_pattern={"to_k": 2}), None, "says rank 2"),
    ({"lora_adapter_metadata": "[" * 9}, None, "cannot be read"),
    ({}, {"r": 4, "lora_alpha": 16, "init_lora_weights": "pissa_niter_4"}, "base model prepared"),
    ({}, {"r": 4, "lora_alpha": 16, "fan_in_fan_out": True}, "transposed"),
]


def test_contradictory_and_incomplete_statements_are_refused() -> None:
    wrong = []
    for metadata, config, reason in REFUSED:
        try:
            plan_changes(contents(metadata, config), TABLE)
        except LoraUnusable as exc:
            if reason in str(exc):
                continue
        wrong.append((metadata, config))
    assert wrong == []


def test_statements_that_cannot_be_read_are_refused_without_a_checkpoint() -> None:
    with pytest.raises(LoraUnusable, match="without exactly one alpha"):
        plan_changes(contents(nested(r=4)), None)


def test_a_configuration_of_one_of_several_files_is_refused_if_it_matters() -> None:
    with pytest.raises(LoraUnusable, match="lies next to several files"):
        plan_changes(contents({}, shared=PEFT), TABLE)
    plan_changes(contents({}, shared={"r": 8, "lora_alpha": 1}), TABLE)
    plan_changes(contents({}, shared={"r": 4, "lora_alpha": 4}), TABLE)
    plan_changes(contents({}, has_alpha=True, shared=PEFT), TABLE)
    plan_changes(contents({"lora_alpha": "16"}, shared=PEFT), TABLE)


def whole_lokr(
    path: Path, alpha: float | None, metadata: dict[str, str], config: dict[str, Any] | None = None
) -> tuple[float | None, int | None]:
    """Alpha and rank that the plan gives to a LoKr with two whole factors."""
    tensors = {"lokr_w1": torch.ones(3, 2), "lokr_w2": torch.ones(4, 4)}
    if alpha is not None:
        tensors["alpha"] = torch.tensor(alpha, dtype=torch.bfloat16)
    stem = PREFIX["peft" if config else "kohya"]
    save_file({f"{stem}.{role}": value for role, value in tensors.items()}, path)
    found = LoraContents(read_lora(path).tensors, metadata, config)
    (change,) = plan_changes(found, TABLE).changes
    return change.alpha, change.rank


def test_two_whole_factors_of_lokr_have_the_scale_of_their_trainer(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    lycoris = {"ss_network_module": "lycoris.kohya", "sshs_model_hash": "0"}
    peft = {"peft_type": "LOKR", "r": 16, "alpha": 64}
    assert whole_lokr(path, None, {}, peft) == (64, 16)
    assert whole_lokr(path, None, {}) == (None, None)
    assert whole_lokr(path, 16, {}) == (None, None)
    # LyCORIS stores its rank as alpha, also of modules with a rank of their own.
    assert whole_lokr(path, 32, kohya("1", "32") | lycoris) == (None, None)
    assert whole_lokr(path, 16, kohya("16", "32") | lycoris) == (None, None)
    assert whole_lokr(path, 181.0, kohya("1", "32")) == (None, None)
    # Trainers of their own formula store the alpha that they divide by the rank.
    assert whole_lokr(path, 16, kohya("16.0", "32", "lycoris.kohya")) == (None, 32)
    assert whole_lokr(path, 8, kohya("8", "4")) == (None, 4)
    assert whole_lokr(path, 32, kohya("32", "114514")) == (None, 114514)
    with pytest.raises(LoraUnusable, match=r"contradicts itself: .*alpha is 16"):
        whole_lokr(path, 16, kohya("8", "32"))

"""`kirazuri checkpoint inspect` on all layouts, single parts, LoRAs and broken files."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.files.lora.keys import Method
from tests.support.checkpoint_command import (
    SHIPPED,
    TINY,
    checkpoint_root,
    inspected,
    run_checkpoint,
)
from tests.support.every_layout import LAYOUTS, MAIN, QWEN, VAE, all_in_one, compiled_in_training
from tests.support.paths import ROOT


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised(layout: str, tmp_path: Path) -> None:
    write, _ = LAYOUTS[layout]
    write(tmp_path)
    report = inspected(tmp_path if (tmp_path / MAIN).is_file() else checkpoint_root(tmp_path))
    assert report["problems"] == []
    parts = {part["name"]: part for part in report["parts"]}
    assert list(parts) == ["transformer", "conditioner", "text_encoder", "vae"]
    assert (parts["transformer"]["blocks"], parts["transformer"]["width"]) == (6, 192)
    assert (parts["text_encoder"]["blocks"], parts["text_encoder"]["width"]) == (2, 128)
    assert parts["conditioner"]["blocks"] == 2
    assert parts["transformer"]["parameters"] == 3_584_064
    assert parts["vae"]["parameters"] == 1_566_371
    assert parts["vae"]["dtypes"] == {"BF16": 148}
    assert report["missing"] == []
    if "prefix" in layout:
        assert f"prefix {parts['transformer']['prefix']!r}" in layout
    if "folder" in layout:
        assert report["kind"] == "diffusers folder"
        assert parts["transformer"]["layout"] == "library"


def test_the_printed_report(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    origin = {
        "modelspec.title": "Mine",
        "ss_base_model_version": "anima",
        "modelspec.thumbnail": "data:" + "x" * 9999,
    }
    save_file(load_file(SHIPPED / MAIN), path, metadata=origin)
    code, output = run_checkpoint("inspect", path, *TINY)
    assert code == 0
    assert f"{path}: transformer, text adapter" in output
    assert "4,024,512 parameters in 169 tensors, BF16" in output
    assert (
        "original names, prefix 'net.', 3,584,064 parameters, BF16, 6 blocks, width 192" in output
    )
    assert f"sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in output
    assert "modelspec.title: Mine\n  ss_base_model_version: anima" in output
    assert "thumbnail" not in output
    assert f"missing: text encoder: kirazuri-tiny expects it at {QWEN}" in output
    assert f"missing: VAE: kirazuri-tiny expects it at {VAE}" in output
    assert output.count("missing: tokenizer") == 2
    assert "sha256" not in run_checkpoint("inspect", path, *TINY, "--no-hash")[1]


def test_what_loading_passes_over_is_listed(tmp_path: Path) -> None:
    compiled_in_training(tmp_path)
    report = inspected(tmp_path / MAIN)
    assert report["problems"] == []
    counts = {kind: len(keys) for kind, keys in report["passed_over"].items()}
    assert counts == {
        "EMA copy": 170,
        "noise schedule": 1,
        "position table": 1,
        "loss of a training": 1,
        "state of a training": 1,
    }
    code, output = run_checkpoint("inspect", tmp_path / MAIN, *TINY)
    assert code == 0
    assert "passed over: noise schedule: model_sampling.sigmas\n" in output
    only_copies = {
        key: tensor
        for key, tensor in load_file(tmp_path / MAIN).items()
        if key.startswith("model_ema.")
    }
    save_file(only_copies, tmp_path / MAIN)
    assert "has no weights" in inspected(tmp_path / MAIN)["problems"][0]


def test_an_all_in_one_file_lacks_only_tokenizers(tmp_path: Path) -> None:
    all_in_one(tmp_path)
    report = inspected(tmp_path / MAIN)
    assert report["kind"].startswith("all-in-one checkpoint")
    assert [missing.split(":")[0] for missing in report["missing"]] == ["tokenizer"] * 2


@pytest.mark.parametrize(("path", "kind"), [(QWEN, "text encoder"), (VAE, "VAE")])
def test_single_parts_are_recognised(path: str, kind: str) -> None:
    assert inspected(SHIPPED / path)["kind"] == kind


@pytest.mark.parametrize(
    ("tensors", "kind", "problem"),
    [
        ({"net.blocks.0.mlp.layer1.weight": torch.int8}, "quantised", "is quantised (int8)"),
        (
            {"net.blocks.0.mlp.layer1.scale_weight": torch.float32},
            "quantised",
            "a quantised weight",
        ),
        ({"net.blocks.7.mlp.layer1.weight": torch.bfloat16}, "transformer", "lacks net.blocks.6."),
        ({"unet.weight": torch.bfloat16}, "transformer", "unknown unet.weight"),
    ],
)
def test_problems_of_a_file_are_reported(
    tensors: dict[str, torch.dtype], kind: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    weights = load_file(SHIPPED / MAIN)
    save_file(weights | {k: torch.ones(2).to(dtype) for k, dtype in tensors.items()}, path)
    report = inspected(path)
    assert report["kind"].startswith(kind)
    assert problem in " ".join(report["problems"])


def test_a_missing_tensor_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for name in ("net.blocks.3.mlp.layer2.weight", "net.llm_adapter.norm.weight"):
        weights = load_file(SHIPPED / MAIN)
        del weights[name]
        save_file(weights, path)
        assert f"lacks {name}" in inspected(path)["problems"][0]


def test_a_lora_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    half = {
        "lora_unet_blocks_0_self_attn_q_proj.lora_down.weight": torch.ones(4, 192),
        "lora_unet_blocks_0_self_attn_q_proj.alpha": torch.tensor(4),
    }
    whole = half | {"lora_unet_blocks_0_self_attn_q_proj.lora_up.weight": torch.ones(192, 4)}
    origin = {"ss_base_model_version": "anima\x1b[31m", "ss_network_dim": "4"}
    save_file(whole, path, metadata=origin)
    report = inspected(path)
    assert (report["kind"], report["missing"], report["problems"]) == ("LoRA", [], [])
    assert report["lora"] == {"method": "lora", "rank": 4, "parts": ["transformer"]}
    assert report["origin"] == origin
    code, output = run_checkpoint("inspect", path, *TINY)
    assert code == 0
    assert "\n  lora of rank 4 for transformer\n" in output
    assert "\x1b" not in output
    save_file(half, path)
    assert "lora_unet_blocks_0_self_attn_q_proj" in inspected(path)["problems"][0]


METHODS: dict[Method, tuple[str, ...]] = {
    "lora": ("lora_A.weight", "lora_B.weight"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": ("lokr_w1", "lokr_w2_a", "lokr_w2_b"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
    "diff": ("diff",),
    "norm": ("w_norm",),
    "bias": ("diff_b",),
    "oft": ("oft_blocks",),
    "boft": ("oft_blocks",),
    "glora": ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    "ia3": ("weight", "on_input"),
    "peft_ia3": ("ia3_l",),
    "peft_oft": ("oft_R.weight",),
}
OTHER_NAMES = (
    ("lora_down.weight", "lora_up.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    ("processor.to_q_lora.down.weight", "processor.to_q_lora.up.weight"),
    ("lora_A", "lora_B"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_magnitude_vector.weight",),
    ("b_norm",),
    ("oft_embedding_R.weight",),
    ("oft_R.weight", "oft_R.scaled_oft"),
)
NOT_READ = (
    ("lora_down.weight", "lora_up.weight", "lora_mid.weight"),
    ("lora_B.bias",),
    ("lokr_t2",),
    ("hada_t1",),
    ("oft_r.default",),
    ("oft_s",),
    ("oft_diag",),
    ("oft_blocks.0",),
    ("oft_R.weight", "dora_scale", "initial_norm"),
    ("dora_multiplier",),
    ("boft_R", "boft_s"),
    ("vera_lambda_b",),
    ("delora_A",),
)


def test_every_lora_method_is_recognised_and_never_called_a_checkpoint(tmp_path: Path) -> None:
    assert set(METHODS) == set(get_args(Method))
    path, wrong = tmp_path / "lora.safetensors", []
    for ends in (*METHODS.values(), *OTHER_NAMES, *NOT_READ):
        stem = "transformer.transformer_blocks.0.attn1.to_q"
        save_file({f"{stem}.{end}": torch.ones(2, 2) for end in ends}, path)
        report = inspected(path)
        code, output = run_checkpoint("inspect", path, *TINY)
        if (
            report["kind"] != "LoRA"
            or report["missing"]
            or "missing" in output
            or "lacks" in output
        ):
            wrong.append((ends, output))
        if ends in NOT_READ and code == 0:
            wrong.append((ends, output))
    assert wrong == []


def test_a_lora_is_checked_as_a_request_checks_it(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    stem = "lora_unet_blocks_0_self_attn_q_proj"
    pair = {
        f"{stem}.lora_down.weight": torch.ones(4, 192),
        f"{stem}.lora_up.weight": torch.ones(192, 4),
    }
    save_file(pair, path, metadata={"ss_network_alpha": "16", "ss_network_dim": "8"})
    assert "ss_network_dim '8'" in inspected(path)["problems"][0]
    save_file(pair, path, metadata={"modelspec.architecture": "anima/control-net"})
    assert "needs an input" in inspected(path)["problems"][0]
    save_file(pair | {f"{stem}.lora_down.weight": torch.ones(4, 8)}, path)
    assert "does not fit" in inspected(path)["problems"][0]


def test_a_folder_of_peft_is_a_lora(tmp_path: Path) -> None:
    stem = "base_model.model.blocks.0.self_attn.q_proj"
    pair = {
        f"{stem}.lora_A.weight": torch.ones(4, 192),
        f"{stem}.lora_B.weight": torch.ones(192, 4),
    }
    save_file(pair, tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    for text, problems in (('{"r": 4, "lora_alpha": 16}', 0), ('{"r": 8, "lora_alpha": 16}', 1)):
        config.write_text(text)
        report = inspected(tmp_path)
        assert (report["kind"], len(report["problems"])) == ("LoRA", problems)


def test_files_of_other_kinds_are_named_as_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for tensors, problem in (
        (
            {"net_ema.blocks.0.mlp.layer1.weight": 2},
            "has no weights, only EMA copy: net_ema.blocks.",
        ),
        (
            {"shared.weight": 2, "encoder.block.0.layer.0.SelfAttention.q.weight": 2},
            "has unknown encoder.block.0.layer.0.SelfAttention.q.weight, shared.weight",
        ),
    ):
        save_file({key: torch.ones(size) for key, size in tensors.items()}, path)
        assert problem in " ".join(inspected(path)["problems"])


def test_pickles_and_other_files_are_refused(tmp_path: Path) -> None:
    pickled = tmp_path / "a.ckpt"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    hidden = tmp_path / "b.safetensors"
    hidden.write_bytes(pickled.read_bytes())
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"GGUF")
    for path, said in (
        (gguf, "is a GGUF file; its quantised weights are not supported"),
        (pickled, "pickle"),
        (hidden, "pickle"),
        (tmp_path / "none.safetensors", "does not exist"),
    ):
        report = inspected(path)
        assert report["kind"] == "refused"
        assert said in report["problems"][0]
        code, output = run_checkpoint("inspect", path, *TINY)
        assert code == 1
        assert said in output


def test_the_command_does_not_load_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cli.main import app; "
        "import cli.checkpoint_files; "
        f"run = CliRunner().invoke(app, ['checkpoint', 'inspect', {str(SHIPPED)!r}]); "
        "assert run.exit_code == 0, run.output; "
        f"run = CliRunner().invoke(app, ['checkpoint', 'convert', {str(SHIPPED / MAIN)!r}, 'x']); "
        "assert run.exit_code == 0, run.output; "
        "print({'torch', 'numpy', 'safetensors', 'transformers'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True,
        env={"PYTHONPATH": str(ROOT), "KIRAZURI_CARD": "kirazuri-tiny"},
    )  # fmt: skip
    assert ran.stdout.strip() == "set()"

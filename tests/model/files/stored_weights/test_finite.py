"""Weights that are not finite are found by their bytes and refused by name, in every command."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.errors import CheckpointError
from model.files.safetensors_header import read_header
from model.files.stored_weights.finite import first_not_finite, vanishes
from model.network.load import load_components
from tests.support.checkpoint_command import TINY, inspected, run_checkpoint
from tests.support.every_layout import CARD, MAIN, SHIPPED

LAYER = "net.blocks.0.mlp.layer1"
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)


def test_only_numbers_that_are_not_finite_are_found(tmp_path: Path) -> None:
    for dtype in DTYPES:
        kept = torch.full((8, 4), torch.finfo(dtype).max, dtype=dtype)
        for bad in (None, torch.nan, torch.inf, -torch.inf):
            if bad in (torch.inf, -torch.inf) and dtype == torch.float8_e4m3fn:
                continue  # it has no infinities
            wide = kept.double().clone()
            if bad is not None:
                wide[7, 3] = bad
            save_file({"a": kept, "b": wide.to(dtype, copy=True)}, tmp_path / "a.safetensors")
            found = first_not_finite(read_header(tmp_path / "a.safetensors").tensors.values())
            assert (found and found.key) == (None if bad is None else "b"), (dtype, bad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_such_checkpoints_are_refused_by_key(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(SHIPPED, folder)
    tensors = load_file(SHIPPED / MAIN)
    weight = tensors[f"{LAYER}.weight"].float()
    weight[0, 0] = torch.nan
    save_file(tensors | {f"{LAYER}.weight": weight.to(dtype)}, folder / MAIN)
    wanted = f"{folder / MAIN}: {LAYER}.weight has numbers that are not finite"
    assert wanted in inspected(folder / MAIN)["problems"]
    code, output = run_checkpoint("convert", folder / MAIN, tmp_path / "out.safetensors", *TINY)
    assert code != 0
    assert "are not finite" in " ".join(output.split())
    assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(CheckpointError) as caught:
        load_components(CARD, folder, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert str(caught.value) == wanted


def test_a_scale_that_makes_weights_infinite_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = load_file(SHIPPED / MAIN)
    twos = torch.full_like(tensors[f"{LAYER}.weight"], 2).to(torch.float8_e4m3fn)
    stored = {f"{LAYER}.weight": twos}
    for scale, problems in ((1e30, 0), (3e38, 1)):
        scales = {f"{LAYER}.scale_weight": torch.tensor(scale)}
        save_file(tensors | stored | scales, path)
        assert len(inspected(path)["problems"]) == problems


def test_a_lora_is_refused_by_inspect_too(tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    stem = "lora_unet_blocks_0_self_attn_q_proj"
    for key in ("lora_up.weight", "alpha"):
        pair = {
            f"{stem}.lora_down.weight": torch.ones(4, 192),
            f"{stem}.lora_up.weight": torch.ones(192, 4),
            f"{stem}.alpha": torch.tensor(4.0),
        }
        pair[f"{stem}.{key}"] = pair[f"{stem}.{key}"] * torch.nan
        save_file(pair, path)
        assert inspected(path)["problems"] == [
            f"{path}: {stem}.{key} has numbers that are not finite"
        ]


def test_only_weights_without_a_normal_number_vanish(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for dtype in DTYPES:
        zeros = torch.zeros(2000, 4)
        one = zeros.clone()
        one[1999, 3] = -1
        save_file({"a": zeros.to(dtype), "b": (-zeros).to(dtype), "c": one.to(dtype)}, path)
        found = {key: vanishes(tensor) for key, tensor in read_header(path).tensors.items()}
        assert found == {"a": True, "b": True, "c": False}, dtype


def test_a_weight_that_vanishes_is_a_damaged_file(tmp_path: Path) -> None:
    folder, path = tmp_path / "checkpoint", tmp_path / "a.safetensors"
    shutil.copytree(SHIPPED, folder)
    tensors = load_file(SHIPPED / MAIN)
    half = bytearray((SHIPPED / MAIN).read_bytes())
    half[len(half) // 2 :] = bytes(len(half) - len(half) // 2)
    path.write_bytes(half)
    assert any("is damaged" in problem for problem in inspected(path)["problems"])
    weight = tensors[f"{LAYER}.weight"].to(torch.float8_e4m3fn)
    scaled = {f"{LAYER}.weight": weight, f"{LAYER}.scale_weight": torch.tensor(1e-42)}
    save_file(tensors | scaled, folder / MAIN)
    wanted = (
        f"{folder / MAIN}: all numbers of {LAYER}.weight are zero or nearly zero; the file is "
        "damaged, for example by an interrupted download"
    )
    assert wanted in inspected(folder / MAIN)["problems"]
    code, output = run_checkpoint("convert", folder / MAIN, tmp_path / "out.safetensors", *TINY)
    assert code != 0
    assert "is damaged" in " ".join(output.split())
    with pytest.raises(CheckpointError) as caught:
        load_components(CARD, folder, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert str(caught.value) == wanted


def test_weights_that_start_as_zero_or_are_zero_in_inserted_blocks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = load_file(SHIPPED / MAIN)
    for name in (
        "blocks.0.adaln_modulation_mlp.2", "blocks.0.self_attn.output_proj", "blocks.0.mlp.layer2",
        "final_layer.linear", "final_layer.adaln_modulation.2",
    ):  # fmt: skip
        tensors[f"net.{name}.weight"].zero_()
    save_file(tensors, path)
    assert inspected(path)["problems"] == []

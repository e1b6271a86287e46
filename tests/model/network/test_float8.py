"""Float8 checkpoints load and convert as the bfloat16 weights that they mean."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.files.keymap import (
    TRANSFORMER_PREFIX,
    adapter_to_original,
    text_encoder_to_original,
    transformer_to_original,
)
from model.network import weights
from model.network.load import Components, load_components
from tests.support.checkpoint_command import TINY, inspected, run_checkpoint
from tests.support.every_layout import CARD, MAIN, QWEN, SHIPPED
from tests.support.float8 import expected_weight, scaled

Tensors = dict[str, Tensor]
EMBEDDINGS = ("net.llm_adapter.embed.weight", "model.embed_tokens.weight")


def write(folder: Path, layout: str) -> dict[str, Tensors]:
    """Write a checkpoint with float8 matrices. Returns the weights that each file means."""
    shutil.copytree(SHIPPED, folder)
    meant = {}
    for file in (MAIN, QWEN):
        tensors = load_file(SHIPPED / file)
        matrices = {name for name, tensor in tensors.items() if tensor.ndim == 2}
        if layout == "unscaled":
            stored = {
                name: t.to(torch.float8_e4m3fn) if name in matrices else t
                for name, t in tensors.items()
            }
            meant[file] = {
                name: expected_weight(t) if name in matrices else t for name, t in stored.items()
            }
            save_file(stored, folder / file)
            continue
        marker = "net." if file == MAIN else ""
        names = matrices - set(EMBEDDINGS)
        stored, meant[file], metadata = scaled(tensors, layout=layout, names=names, marker=marker)
        for name in EMBEDDINGS:
            if layout == "old" and name in stored:  # which ComfyUI stores without a scale
                stored[name] = tensors[name].to(torch.float8_e4m3fn)
                meant[file][name] = expected_weight(stored[name])
        save_file(stored, folder / file, metadata=metadata)
    return meant


def load(folder: Path) -> Components:
    device = torch.device("cpu")
    return load_components(CARD, folder, device=device, dtype=torch.bfloat16)


def published(parts: Components) -> Iterator[tuple[str, str, Tensor]]:
    """File, published name and loaded weight of the transformer, the adapter and Qwen3."""
    for name, weight in parts.transformer.state_dict().items():
        yield MAIN, TRANSFORMER_PREFIX + transformer_to_original(name), weight
    for name, weight in parts.conditioner.state_dict().items():
        yield MAIN, TRANSFORMER_PREFIX + adapter_to_original(name), weight
    for name, weight in parts.text_encoder.state_dict().items():
        yield QWEN, text_encoder_to_original(name), weight


@pytest.mark.parametrize("layout", ["unscaled", "old", "new", "metadata"])
def test_every_layout_loads_as_the_weights_it_means(layout: str, tmp_path: Path) -> None:
    meant = write(tmp_path / "float8", layout)
    wrong = []
    for file, name, weight in published(load(tmp_path / "float8")):
        wanted = meant[file][name][tuple(map(slice, weight.shape))]
        if not torch.equal(weight, wanted.to(weight.dtype)):
            wrong.append(name)
        if weight.ndim == 2 and weight.dtype != torch.bfloat16:
            wrong.append(f"{name} is {weight.dtype}")
    assert wrong == []


@pytest.mark.parametrize("layout", ["unscaled", "old", "new", "metadata"])
def test_every_layout_is_told_and_converts_to_bfloat16(layout: str, tmp_path: Path) -> None:
    meant = write(tmp_path / "float8", layout)
    report = inspected(tmp_path / "float8")
    assert report["problems"] == report["missing"] == []
    assert "F8_E4M3 weights (float8) are widened to bfloat16" in report["notes"][0]
    assert ("scale of float8 weights" in report["passed_over"]) == (layout != "unscaled")
    for file in (MAIN, QWEN):
        code, output = run_checkpoint(
            "convert", tmp_path / "float8" / file, tmp_path / "bf16", *TINY
        )
        assert code == 0, output
        with safe_open(tmp_path / "bf16" / file, "pt") as written:
            assert "_quantization_metadata" not in (written.metadata() or {})
        tensors = load_file(tmp_path / "bf16" / file)
        assert set(tensors) == set(meant[file])
        assert [name for name, t in tensors.items() if not torch.equal(t, meant[file][name])] == []
        assert {t.dtype for t in tensors.values()} == {torch.bfloat16}


def test_large_weights_are_widened_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "float8", "old")
    whole = dict(load(tmp_path / "float8").transformer.state_dict())
    monkeypatch.setattr(weights, "_CHUNK", 1000)
    for name, weight in load(tmp_path / "float8").transformer.state_dict().items():
        assert torch.equal(weight, whole[name]), name


def test_the_columns_of_the_mask_are_widened_too(tmp_path: Path) -> None:
    meant = write(tmp_path / "float8", "new")
    columns = load(tmp_path / "float8").mask_columns
    assert columns is not None
    assert torch.equal(columns, meant[MAIN]["net.x_embedder.proj.1.weight"][:, 64:].float())

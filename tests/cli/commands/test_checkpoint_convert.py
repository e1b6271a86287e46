"""`kirazuri checkpoint convert`: every layout becomes the published files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoint_command import (
    CARD,
    SHIPPED,
    TINY,
    checkpoint_root,
    inspected,
    run_checkpoint,
)
from tests.support.every_layout import LAYOUTS, MAIN, QWEN, VAE, all_in_one, library_folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_published_files(layout: str, tmp_path: Path) -> None:
    write, _ = LAYOUTS[layout]
    write(tmp_path / "source")
    root = checkpoint_root(tmp_path / "source")
    sources = [root] if (root / "modular_model_index.json").is_file() else [root / MAIN]
    sources += [root / own for own in (QWEN, VAE) if (root / own).is_file()]
    for source in sources:
        code, output = _convert(source, tmp_path / "target")
        assert code == 0, output
    for file in (MAIN, QWEN, VAE):
        mine, theirs = load_file(tmp_path / "target" / file), load_file(SHIPPED / file)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    if "folder" in layout:
        for own in (CARD.files.qwen_tokenizer, CARD.files.t5_tokenizer):
            assert (tmp_path / "target" / own / "tokenizer.json").is_file()
    assert not list((tmp_path / "target").rglob("*.part"))


def _convert(source: Path, target: Path, *options: str) -> tuple[int, str]:
    return run_checkpoint("convert", source, target, *TINY, *options)


def test_a_file_gets_the_transformer(tmp_path: Path) -> None:
    all_in_one(tmp_path)
    target = tmp_path / "mine.safetensors"
    code, output = _convert(tmp_path / MAIN, target)
    assert (code, output) == (0, f"{target}  transformer and text adapter\n")
    assert set(load_file(target)) == set(load_file(SHIPPED / MAIN))
    code, output = _convert(tmp_path / MAIN, target)
    assert code == 1
    assert "exists already" in output


def test_the_channel_of_the_mask_is_restored(tmp_path: Path) -> None:
    narrow = load_file(SHIPPED / MAIN)
    key = "net.x_embedder.proj.1.weight"
    narrow[key] = narrow[key][:, :64].contiguous()
    save_file(narrow, tmp_path / "narrow.safetensors", metadata={"modelspec.title": "Narrow"})
    assert _convert(tmp_path / "narrow.safetensors", tmp_path / "wide.safetensors")[0] == 0
    wide = load_file(tmp_path / "wide.safetensors")
    assert wide[key].shape == (192, 68)
    assert torch.equal(wide[key][:, :64], narrow[key])
    assert not wide[key][:, 64:].any()
    assert torch.equal(
        wide["net.final_layer.linear.weight"], narrow["net.final_layer.linear.weight"]
    )
    assert inspected(tmp_path / "wide.safetensors")["origin"] == {"modelspec.title": "Narrow"}
    _, output = _convert(tmp_path / "narrow.safetensors", tmp_path / "json.safetensors", "--json")
    assert json.loads(output)[0]["path"] == str(tmp_path / "json.safetensors")


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    library_folder(tmp_path / "folder")
    weights = tmp_path / "folder/transformer/diffusion_pytorch_model.safetensors"
    save_file(load_file(weights) | {"transformer_blocks.0.extra.weight": torch.ones(1)}, weights)
    for source, said in (
        (tmp_path / "folder", "unknown transformer_blocks.0.extra.weight"),
        (tmp_path / "none.safetensors", "no weight file"),
    ):
        code, output = _convert(source, tmp_path / "target")
        assert code == 1
        assert said in output
    code, output = run_checkpoint("convert", SHIPPED / VAE, tmp_path / "a.safetensors", *TINY)
    assert code == 1
    assert "no transformer" in output
    assert not (tmp_path / "target").exists()

"""What is wrong with a checkpoint's folder is told per part, with what to do."""

import pickle
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.checks.checkpoint import check_checkpoint, check_tokenizers
from cli.checks.finding import Finding, faults, lines_of
from model.card import load_card
from tests.support.checkpoint_command import CARD, SHIPPED
from tests.support.cli import kirazuri_inline
from tests.support.every_layout import MAIN, QWEN, VAE, all_in_one, library_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The small checkpoint, to be damaged."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "checkpoint"))


def _faults(folder: Path) -> list[Finding]:
    findings, parts = check_checkpoint(CARD, folder)
    return faults([*findings, *(check_tokenizers(CARD, folder, parts) if parts else ())])


def _rename(folder: Path) -> None:
    (folder / MAIN).rename(folder / "Kirazuri Tiny (1).safetensors")


def _swap(folder: Path) -> None:
    shutil.copy(folder / VAE, folder / QWEN)


def _lora(folder: Path) -> None:
    stem = "lora_unet_blocks_0_cross_attn_k_proj"
    pair = {
        f"{stem}.lora_down.weight": torch.ones(4, 128),
        f"{stem}.lora_up.weight": torch.ones(192, 4),
    }
    save_file(pair, folder / MAIN)


def _truncate(folder: Path) -> None:
    with (folder / MAIN).open("r+b") as file:
        file.truncate(1_000_000)


def _write(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / MAIN).write_bytes(content)

    return write


def _integers(folder: Path) -> None:
    weights = load_file(folder / VAE)
    save_file({name: weight.to(torch.int8) for name, weight in weights.items()}, folder / VAE)


def _wrong_shape(folder: Path) -> None:
    weights = load_file(folder / QWEN)
    name = next(name for name in weights if name.endswith("layers.0.mlp.down_proj.weight"))
    save_file({**weights, name: torch.ones(3, 5)}, folder / QWEN)


def _no_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizers/t5")


def _broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizers/t5/tokenizer.json").write_text("<html>")


@pytest.mark.parametrize(
    ("damage", "check", "found", "advice"),
    [
        (_rename, "transformer and text adapter", "is not there", "fits: mv '"),
        (_swap, "text encoder", "it has no text_encoder, but vae", "Move it away"),
        (_wrong_shape, "weights", "has shape", "Move it away"),
        (_lora, "transformer and text adapter", "is a LoRA", "KIRAZURI_LORA_DIR"),
        (_truncate, "transformer and text adapter", "is truncated", "Move it away"),
        (_write(b"<!DOCTYPE html><html>"), "transformer and text adapter", "is a web page", "Move"),
        (
            _write(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 8\n"),
            "transformer and text adapter", "Git LFS pointer", "Move it away",
        ),
        (_write(pickle.dumps({"a": 1})), "transformer and text adapter", "is a pickle", "Move"),
        (_write(b""), "transformer and text adapter", "is truncated", "Move it away"),
        (_integers, "VAE", "(I8)", "Move it away"),
        (_no_tokenizer, "T5 tokenizer", "is not there", "checkpoint fetch"),
        (_broken_tokenizer, "tokenizers", "t5", "checkpoint fetch"),
    ],
)  # fmt: skip
def test_a_fault_names_the_part_and_what_to_do(
    folder: Path, damage: Callable[[Path], None], check: str, found: str, advice: str
) -> None:
    assert _faults(folder) == []
    damage(folder)
    (fault,) = _faults(folder)
    assert fault.check == check
    assert found in fault.found
    assert advice in fault.advice


def test_the_named_command_mends_a_wrong_name(folder: Path) -> None:
    (folder / MAIN).rename(folder / "renamed.safetensors")
    (fault,) = _faults(folder)
    subprocess.run(shlex.split(fault.advice.partition("fits: ")[2]), check=True)
    assert _faults(folder) == []


def test_other_layouts_are_checked_too(tmp_path: Path) -> None:
    all_in_one(tmp_path / "one")
    library_folder(tmp_path / "library")
    for root in (tmp_path / "one", tmp_path / "library"):
        places = [root, *root.iterdir()]
        assert any(_faults(place) == [] for place in places if place.is_dir()), root
    shutil.rmtree(next((tmp_path / "library").rglob("vae")))
    root = next(place for place in places if (place / "transformer").is_dir())
    (fault,) = _faults(root)
    assert (fault.check, "is not there" in fault.found) == ("VAE", True)


def test_a_checkpoint_without_a_folder(tmp_path: Path) -> None:
    big = load_card("kirazuri-v1")
    assert faults(check_checkpoint(CARD, None)[0]) == []
    (nowhere,) = check_checkpoint(big, None)[0]
    assert "--checkpoint-dir or KIRAZURI_CHECKPOINT_DIR" in nowhere.advice
    (gone,) = check_checkpoint(big, tmp_path / "gone")[0]
    assert f"there is no folder {tmp_path / 'gone'}" in gone.found


def test_up_tells_weights_that_do_not_fit_before_anything_starts(folder: Path) -> None:
    _wrong_shape(folder)
    arguments = ("up", "--checkpoint-dir", str(folder), "--port", "0")
    run = kirazuri_inline(*arguments, folder=folder.parent)
    assert run.returncode == 1
    assert run.stderr.startswith("fault   weights ")
    assert "has shape (3, 5)" in run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: not started because of a fault")
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_advice_is_not_repeated() -> None:
    findings = [Finding(name, "fault", "gone", "do this\nor that") for name in ("a", "b")]
    assert sum("do this" in line for line in lines_of(findings)) == 1

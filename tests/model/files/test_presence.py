"""Which of a card's files a folder has, and what mends it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from model.card import Card, load_card
from model.files.presence import find_files, why_incomplete
from tests.support.every_layout import CARD as TINY
from tests.support.every_layout import LAYOUTS, MAIN, QWEN, SHIPPED, VAE, library_folder
from tests.support.lora_files import write as write_lora


def _states(folder: Path, card: Card = TINY) -> list[str]:
    """What a folder has of transformer, text encoder, VAE and the two tokenizers."""
    return [
        "missing" if row.place is None else "unusable" if row.problem else "there"
        for row in find_files(card, folder)
    ]


def _why(folder: Path | None, card: Card = TINY) -> str:
    problem = why_incomplete(card, folder, fetch="fetch them")
    assert problem
    return problem


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "a folder"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_complete(layout: str, tmp_path: Path) -> None:
    write, _ = LAYOUTS[layout]
    shutil.copytree(SHIPPED / "tokenizers", tmp_path / "tokenizers")
    write(tmp_path)
    assert why_incomplete(TINY, tmp_path, fetch="") is None


def test_a_misnamed_file_is_recognised_by_its_content(folder: Path) -> None:
    (folder / MAIN).rename(folder / "Kirazuri_V1.SAFETENSORS")
    (folder / VAE).rename(folder / "vae.safetensors")
    (folder / "tokenizers/t5").rename(folder / "t5-tokenizer")
    assert _states(folder) == ["missing", "there", "missing", "there", "missing"]
    told = _why(folder)
    assert f"mv '{folder}/Kirazuri_V1.SAFETENSORS' '{folder / MAIN}'" in told
    assert f"mv '{folder}/vae.safetensors' '{folder / VAE}'" in told
    assert f"mv '{folder}/t5-tokenizer' '{folder}/tokenizers/t5'" in told


def test_the_command_for_a_misnamed_file_runs(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    shutil.copy(SHIPPED / MAIN, folder / "kirazuri_v1.safetensors")
    (command,) = (line.split(" fits: ")[1] for line in _why(folder).splitlines() if "fits" in line)
    subprocess.run(["sh", "-ec", command], check=True)
    assert _states(folder)[0] == "there"


def test_weights_of_another_size_do_not_fit(folder: Path) -> None:
    card = load_card("kirazuri-v1")
    for file in (card.files.transformer, card.files.text_encoder, card.files.vae):
        assert not (folder / file.path).exists()
    assert "fits" not in _why(folder, card)


def test_a_file_that_must_make_room_is_told_so(folder: Path) -> None:
    card = load_card("kirazuri-v1")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for file in (card.files.transformer, card.files.text_encoder):
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(pointer)
    told = _why(folder, card).splitlines()
    by_hand = card.files.transformer.note
    assert f"transformer and text adapter: Move it away first. {by_hand}" in told
    assert "text encoder: Move it away first. Then: fetch them" in told


def test_a_lora_in_the_place_of_the_checkpoint_is_told_where_it_belongs(folder: Path) -> None:
    (folder / MAIN).unlink()
    write_lora(folder / MAIN)
    assert "Move it to the folder of KIRAZURI_LORA_DIR first." in _why(folder)


def test_a_truncated_file_under_another_name_is_told(folder: Path) -> None:
    content = (folder / MAIN).read_bytes()
    (folder / MAIN).unlink()
    (folder / "kirazuri_v1.safetensors").write_bytes(content[:-1])
    told = _why(folder)
    assert f"also a file that cannot be used: {folder}/kirazuri_v1.safetensors is truncated" in told


def test_a_file_instead_of_the_folder_is_told(folder: Path) -> None:
    told = _why(folder / MAIN)
    assert told.startswith(f"{folder / MAIN} is a file; the checkpoint folder of ")
    assert "fetch them" not in told, "nothing can be downloaded into a file"


def test_files_in_each_others_place_are_recognised(folder: Path) -> None:
    other = shutil.copy(folder / MAIN, folder / "kirazuri_v1.safetensors")
    shutil.copy(folder / QWEN, folder / MAIN)
    assert f"mv -i '{other}' '{folder / MAIN}'" in _why(folder), "it asks before it overwrites"
    assert _states(folder) == ["unusable", "there", "there", "there", "there"]
    assert "it has no transformer and no conditioner, but text_encoder" in _why(folder)


def test_a_file_that_cannot_be_read_is_unusable(folder: Path) -> None:
    (folder / VAE).write_bytes(b"<html>not found</html>")
    (folder / "tokenizers/qwen3/tokenizer.json").unlink()
    assert _states(folder) == ["there", "there", "unusable", "unusable", "there"]
    told = _why(folder)
    assert str(folder / VAE) in told
    assert "neither tokenizer.json nor vocab.json and merges.txt" in told


def test_a_folder_saved_by_diffusers_may_lack_a_part(tmp_path: Path) -> None:
    library_folder(tmp_path)
    shutil.rmtree(tmp_path / "vae")
    assert _states(tmp_path) == ["there", "there", "missing", "there", "there"]


def test_a_folder_that_is_not_there_or_not_named_is_told(tmp_path: Path) -> None:
    card = load_card("kirazuri-v1")
    told = _why(tmp_path / "none", card)
    assert told.startswith(f"the checkpoint folder {tmp_path}/none of kirazuri-v1 does not exist:")
    assert "missing   transformer and text adapter  diffusion_models/kirazuri-anima-v1" in told
    assert "4.2 GB" in told
    assert "To download what has an address: fetch them" in told
    assert card.files.transformer.note in told
    unnamed = _why(None, card)
    assert "KIRAZURI_CHECKPOINT_DIR" in unnamed
    assert "model/checkpoints" not in unnamed, "the package is no place for it"
    assert why_incomplete(TINY, None, fetch="") is None, "it ships with the package"

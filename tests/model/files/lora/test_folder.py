"""A folder of LoRAs: names, hashes, metadata, and files that are not opened."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.card import Card, load_card
from model.errors import CheckpointError, LoraChanged, LoraMissing, LoraUnusable
from model.files.lora.folder import (
    LoraFile,
    LoraFolder,
    base_warning,
    check_for_checkpoint,
    file_warnings,
    read_lora,
)
from tests.support.paths import DATA

STEM = "lora_unet_blocks_0_self_attn_q_proj"


def write(path: Path, *, rank: int = 4, metadata: dict[str, str] | None = None) -> Path:
    """A LoRA of one layer."""
    tensors = {
        f"{STEM}.lora_down.weight": torch.zeros(rank, 8),
        f"{STEM}.lora_up.weight": torch.full((8, rank), float(rank)),
        f"{STEM}.alpha": torch.tensor(1.0),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    return path


def found(folder: Path) -> LoraFolder:
    files = LoraFolder(folder)
    files.refresh()
    return files


def only(folder: Path) -> LoraFile:
    (file,) = found(folder).files.values()
    return file


def test_names_are_paths_without_suffix(tmp_path: Path) -> None:
    for name in ("hats", "style/Ink (v1.2)", "style/水彩 & more", "a.b-c_d+e"):
        write(tmp_path / f"{name}.safetensors")
    (tmp_path / "notes.txt").write_text("no LoRA")
    assert list(found(tmp_path).files) == [
        "a.b-c_d+e",
        "hats",
        "style/Ink (v1.2)",
        "style/水彩 & more",
    ]


def test_a_file_whose_metadata_is_null_is_listed(tmp_path: Path) -> None:
    shutil.copy(DATA / "field" / "lora" / "meta-null.safetensors", tmp_path)
    assert only(tmp_path).name == "meta-null"


def test_names_with_separators_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "good.safetensors")
    names = ["a:b", "a|b", "a?b", "<a>", "a\nb", "a ", ".hidden", "x" * 201, "a\\b", "a\udc80"]
    wrong = []
    for name in names:
        caplog.clear()
        path = path.rename(tmp_path / f"{name}.safetensors")
        if found(tmp_path).files or not re.search("event=refused.*its name may have", caplog.text):
            wrong.append(name)
    assert wrong == []


def test_hidden_folders_and_links_out_of_the_folder_are_ignored(tmp_path: Path) -> None:
    inside, outside = tmp_path / "loras", tmp_path / "secret"
    write(inside / ".git/a.safetensors")
    write(outside / "b.safetensors")
    (inside / "link.safetensors").symlink_to(outside / "b.safetensors")
    (inside / "folder").symlink_to(outside)
    (inside / "nowhere.safetensors").symlink_to(inside / "gone")
    (inside / "loop.safetensors").symlink_to(inside / "loop.safetensors")
    os.mkfifo(inside / "pipe.safetensors")
    (inside / "directory.safetensors").mkdir()
    assert not found(inside).files
    write(inside / "real.safetensors")
    (inside / "same.safetensors").symlink_to(inside / "real.safetensors")
    assert list(found(inside).files) == ["real", "same"]


def test_a_name_is_not_a_path(tmp_path: Path) -> None:
    write(tmp_path / "secret/b.safetensors")
    write(tmp_path / "loras/b.safetensors")
    files = found(tmp_path / "loras")
    for name in ("../secret/b", "/etc/passwd", "a/../b", "b.safetensors", ""):
        with pytest.raises(LoraMissing, match="there is no LoRA"):
            files.sha256(name)


def test_other_files_are_refused_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"net.blocks.0.weight": torch.zeros(2)}, tmp_path / "checkpoint.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x02}q\0.")
    assert not found(tmp_path).files
    for reason in ("an unknown method: net.blocks.0.weight", "truncated", "is a pickle"):
        assert reason in caplog.text


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write((20_000_000).to_bytes(8, "little"))
        file.truncate(30_000_000)
    with pytest.raises(CheckpointError, match="header"):
        read_lora(path)
    assert not found(tmp_path).files


def test_a_missing_folder_has_no_loras(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not found(tmp_path / "missing").files
    assert "missing does not exist" in caplog.text
    nothing = LoraFolder(None)
    nothing.refresh()
    assert not nothing.files


# -- changes -----------------------------------------------------------------------------------


def test_new_changed_and_removed_files_are_seen(tmp_path: Path) -> None:
    files = found(tmp_path)
    path = write(tmp_path / "a.safetensors", rank=4)
    assert not files.files
    files.refresh()
    assert files.files["a"].rank == 4
    write(path, rank=6)
    files.refresh()
    assert files.files["a"].rank == 6
    path.unlink()
    files.refresh()
    assert not files.files


def test_a_file_is_read_once_for_every_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.safetensors")
    files = found(tmp_path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert files.known_sha256("a") is None
    assert files.sha256("a") == files.known_sha256("a") == expected

    def never(*_: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", never)
        patched.setattr("model.files.lora.folder.read_header", never)
        files.refresh()
        assert files.sha256("a") == expected
    write(path, rank=5)
    assert files.sha256("a") == hashlib.sha256(path.read_bytes()).hexdigest() != expected
    files.refresh()
    assert files.files["a"].rank == 5
    path.unlink()
    with pytest.raises(LoraMissing, match="cannot be read"):
        files.sha256("a")
    assert files.known_sha256("nobody") is None


def test_a_file_that_is_being_written_has_no_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.safetensors")
    files = found(tmp_path)
    real = hashlib.file_digest

    def while_it_grows(file: object, name: str) -> object:
        with path.open("ab") as writer:
            writer.write(b"more")
        return real(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", while_it_grows)
    with pytest.raises(LoraChanged, match="being written"):
        files.sha256("a")


# -- metadata ----------------------------------------------------------------------------------


def test_kohyas_metadata(tmp_path: Path) -> None:
    tags = {"10_hats": {"hat": 30, "1girl": 90}, "5_more": {"hat": 80, "smile": 3}}
    metadata = {
        "ss_sd_model_name": "C:\\models\\anima-preview.safetensors",
        "modelspec.architecture": "anima-preview/lora",
        "ss_tag_frequency": json.dumps(tags),
    }
    write(tmp_path / "a.safetensors", metadata=metadata)
    file = only(tmp_path)
    assert (file.base, file.architecture) == ("anima-preview", "anima-preview/lora")
    assert file.trigger_words == ("hat", "1girl", "smile")
    assert (file.method, file.rank, file.parts) == ("lora", 4, ("transformer",))
    assert file.size == file.path.stat().st_size


def test_a_trigger_phrase_goes_before_tags(tmp_path: Path) -> None:
    metadata = {"modelspec.trigger_phrase": " ink\n style ", "ss_tag_frequency": '{"a": {"b": 1}}'}
    write(tmp_path / "a.safetensors", metadata=metadata)
    assert only(tmp_path).trigger_words == ("ink style",)


def test_invalid_tags_and_long_names_are_tolerated(tmp_path: Path) -> None:
    wrong = []
    for tags in (
        "", "no json", "[]", '{"a": 1}', '{"a": {"b": "x"}}', '{"a": {"b": 1e999}}',
        "[" * 100_000, "null",
    ):  # fmt: skip
        metadata = {"ss_tag_frequency": tags, "ss_sd_model_name": "x" * 9999}
        write(tmp_path / "a.safetensors", metadata=metadata)
        file = only(tmp_path)
        if (file.trigger_words, file.base) != ((), "x" * 200):
            wrong.append(tags[:80])
    assert wrong == []


@pytest.fixture(scope="module")
def kirazuri() -> Card:
    return load_card("kirazuri-v1")


def warning_for(folder: Path, card: Card, **metadata: str) -> tuple[str, str] | None:
    write(folder / "a.safetensors", metadata=metadata)
    warning = base_warning(only(folder), card)
    return (warning.code, warning.detail) if warning else None


def test_a_lora_of_another_base_gets_the_cards_warning(tmp_path: Path, kirazuri: Card) -> None:
    warning = warning_for(tmp_path, kirazuri, ss_sd_model_name="anima-preview.safetensors")
    assert warning is not None
    assert warning[0] == "lora_other_base"
    assert "a was trained on anima-preview, not on Kirazuri (Anima) v1." in warning[1]
    (advice,) = (known.detail for known in kirazuri.limitations if known.code == "base_loras")
    assert advice in warning[1]


def test_a_lora_of_unknown_base_gets_a_warning_if_the_card_has_one(
    tmp_path: Path, kirazuri: Card
) -> None:
    warning = warning_for(tmp_path, kirazuri)
    assert warning is not None
    assert warning[0] == "lora_base_unknown"
    assert warning_for(tmp_path, load_card("kirazuri-tiny")) is None


def test_a_lora_of_this_checkpoint_gets_no_warning(tmp_path: Path, kirazuri: Card) -> None:
    for base in ("kirazuri-anima-v1.safetensors", "Kirazuri_v1", "/m/KIRAZURI"):
        assert warning_for(tmp_path, kirazuri, ss_sd_model_name=base) is None, base


# -- refused files and peft's configuration -----------------------------------------------------


def test_names_of_any_language_and_suffixes_in_upper_case_are_read(tmp_path: Path) -> None:
    names = ["【画风】wlop", "a·b", "wave～dash", 'say "hi"', "one, two", "50%", "it's", "ß"]
    for name in names:
        write(tmp_path / f"{name}.safetensors")
    write(tmp_path / "UPPER.SAFETENSORS")
    write(tmp_path / "both.safetensors", rank=2)
    write(tmp_path / "both.SAFETENSORS", rank=3)
    files = found(tmp_path)
    assert set(files.files) == {*names, "UPPER", "both"}
    assert files.files["both"].rank == 2
    assert files.refused == {"both.SAFETENSORS": "another file has this name"}


def test_refused_files_have_a_reason_without_the_folders_path(tmp_path: Path) -> None:
    save_file({"net.blocks.0.weight": torch.zeros(2)}, tmp_path / "checkpoint.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    write(tmp_path / "a:b.safetensors")
    refused = found(tmp_path).refused
    assert set(refused) == {"checkpoint", "broken", "a:b"}
    assert "net.blocks.0.weight" in refused["checkpoint"]
    assert refused["broken"].startswith("broken.safetensors is truncated")
    assert str(tmp_path) not in "".join(refused.values())


def test_pefts_configuration_belongs_to_the_file_and_its_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "style/adapter_model.safetensors")
    plain = hashlib.sha256(path.read_bytes()).hexdigest()
    files = found(tmp_path)
    assert files.sha256("style/adapter_model") == plain
    config = path.with_name("adapter_config.json")
    config.write_text('{"r": 4, "lora_alpha": 16}')
    files.refresh()
    both = hashlib.sha256(path.read_bytes() + config.read_bytes()).hexdigest()
    assert files.sha256("style/adapter_model") == both
    assert read_lora(path).adapter_config == {"r": 4, "lora_alpha": 16}
    config.write_text("[")
    files.refresh()
    assert files.refused == {"style/adapter_model": "has adapter_config.json that cannot be read"}


def test_a_configuration_next_to_several_files_belongs_to_adapter_model(tmp_path: Path) -> None:
    first = write(tmp_path / "first.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 16}')
    assert read_lora(first).adapter_config is not None
    model = write(tmp_path / "adapter_model.safetensors")
    assert read_lora(first).adapter_config is None
    assert read_lora(model).adapter_config is not None


def test_files_that_share_a_configuration_are_read_again_when_that_changes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / f"{name}.safetensors")
    files = found(tmp_path)
    assert read_lora(tmp_path / "first.safetensors").shared_config is None
    config = tmp_path / "adapter_config.json"
    for text, is_usable in (("[", False), ('{"r": 4, "lora_alpha": 16}', True)):
        config.write_text(text)
        files.refresh()
        assert set(files.files) == ({"first", "second"} if is_usable else set())
    assert read_lora(tmp_path / "first.safetensors").shared_config is not None
    write(tmp_path / "adapter_model.safetensors")
    assert read_lora(tmp_path / "first.safetensors").shared_config is None


def test_numbers_that_are_not_finite_are_found_when_the_file_is_hashed(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for bad in (torch.nan, torch.inf, -torch.inf):
            up = torch.full((8, 4), torch.finfo(dtype).max, dtype=dtype)
            tensors = {f"{STEM}.lora_up.weight": up, f"{STEM}.lora_down.weight": -up.T.contiguous()}
            save_file(tensors, tmp_path / "a.safetensors")
            files = LoraFolder(tmp_path, reads_numbers=True)
            files.refresh()
            assert files.sha256("a")
            up[7, 3] = bad
            save_file(tensors, tmp_path / "a.safetensors")
            files.refresh()
            with pytest.raises(LoraUnusable, match=r"lora_up\.weight has numbers that are"):
                files.sha256("a")
            files.refresh()
            assert "not finite" in files.refused["a"], dtype
            assert not files.files


def test_parts_that_are_left_out_and_other_depths_give_warnings(kirazuri: Card) -> None:
    tiny = load_card("kirazuri-tiny")
    files = LoraFolder(DATA / "field/lora", check_for_checkpoint(tiny, None, skips_misfits=True))
    files.refresh()
    (warning,) = file_warnings(files.files["onetrainer-bundle-emb"], tiny)
    assert warning.code == "lora_partial"
    assert "bundle_emb.mytoken.qwen_out" in warning.detail
    deeper = replace(files.files["dora-cols"], depth_warning="It is made for 28 blocks.")
    (warning,) = file_warnings(deeper, tiny)
    assert (warning.code, warning.detail) == (
        "lora_other_depth",
        "dora-cols: It is made for 28 blocks.",
    )

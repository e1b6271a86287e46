"""One checkpoint in every layout gives the same weights and the same image."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from model.card import Card
from model.engine.loading import load_engine
from model.engine.protocol import ImageReady
from model.errors import CheckpointError
from model.files.checkpoint_check import check_parts
from model.files.layouts import LIBRARY, ORIGINAL, find_parts, locate_parts, tokenizer_folders
from model.network.load import load_components
from model.request import GenerationRequest
from model.resolved_request import resolve_request
from tests.support.every_layout import CARD, LAYOUTS, MAIN, QWEN, SHIPPED, VAE, all_in_one
from tests.support.every_layout import library_folder as write_library_folder
from tests.support.refusals import message_of

CPU = torch.device("cpu")


def picture(card: Card, folder: Path) -> NDArray[numpy.uint8]:
    engine = load_engine(
        card, folder, device="cpu", precision="float32", threads=1, token_budget=4096
    )
    asked = GenerationRequest(
        prompt="1girl, (blue hair:1.2), smile", steps=3, resolution="96x96", sampler="er_sde"
    )
    engine.admit("job", resolve_request(asked, card, seed=7))
    for _ in range(50):
        for event in engine.step():
            if isinstance(event, ImageReady):
                return event.pixels
    raise AssertionError("the engine made no image")


@cache
def shipped_picture() -> bytes:
    made = picture(CARD, SHIPPED)
    assert made.std() > 10, "a flat image proves nothing"
    return made.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_image(layout: str, tmp_path: Path) -> None:
    write, card = LAYOUTS[layout]
    write(tmp_path)
    assert picture(card, tmp_path).tobytes() == shipped_picture()


def test_parts_in_the_transformers_file_take_precedence(tmp_path: Path) -> None:
    all_in_one(tmp_path)
    for path in (QWEN, VAE):
        shutil.copy(SHIPPED / path, tmp_path / path)
    located = locate_parts(CARD.files, tmp_path).parts
    assert {located["text_encoder"].path, located["vae"].path} == {tmp_path / MAIN}
    assert located["text_encoder"].prefix == "text_encoders.qwen3_06b.transformer.model."


def test_paths_layouts_and_prefixes_of_the_parts(tmp_path: Path) -> None:
    write_library_folder(tmp_path)
    located = locate_parts(CARD.files, tmp_path).parts
    assert located["transformer"].path == tmp_path / "transformer"
    assert located["conditioner"].path == tmp_path / "text_conditioner"
    assert located["vae"].layout == located["text_encoder"].layout == LIBRARY
    assert located["vae"].config["num_res_blocks"] == CARD.vae.num_res_blocks
    assert tokenizer_folders(CARD.files, tmp_path) == (
        tmp_path / "tokenizer",
        tmp_path / "t5_tokenizer",
    )
    shipped = locate_parts(CARD.files, SHIPPED).parts
    assert shipped["transformer"].layout == shipped["vae"].layout == ORIGINAL
    assert shipped["transformer"].prefix == shipped["conditioner"].prefix == "net."


def test_the_transformer_is_read_with_the_prefixes_of_other_programs(tmp_path: Path) -> None:
    tensors = load_file(SHIPPED / MAIN)
    path = tmp_path / "a.safetensors"
    extra = {"rope.freqs": torch.ones(4), "vae.latents_mean": torch.ones(16)}
    for prefix in ("net.net.", "model.net.", "state_dict.net.", "dit.", "pipe.dit."):
        renamed = {prefix + key.removeprefix("net."): value for key, value in tensors.items()}
        save_file(renamed | extra, path)
        parts = check_parts(find_parts(path), CARD)
        assert {name: found.part.prefix for name, found in parts.items()} == {
            "transformer": prefix,
            "conditioner": prefix,
        }


def test_the_hash_covers_one_file_or_all_files(tmp_path: Path) -> None:
    write_library_folder(tmp_path)
    hashes = {
        load_components(CARD, folder, device=CPU, dtype=torch.float32).sha256
        for folder in (SHIPPED, tmp_path, tmp_path)
    }
    assert len(hashes) == 2
    assert all(len(digest) == 64 for digest in hashes)


def test_a_folders_settings_must_be_the_cards(tmp_path: Path) -> None:
    write_library_folder(tmp_path)
    wrong = []
    for part, name, value in (
        ("transformer", "rope_scale", [1.0, 3.0, 3.0]),
        ("text_conditioner", "min_sequence_length", 512),
        ("text_encoder", "rms_norm_eps", 1e-5),
        ("text_encoder", "rope_parameters", {"rope_type": "default", "rope_theta": 1e4}),
        ("vae", "latents_mean", [0.0] * 16),
        ("vae", "temperal_downsample", [True, True, True]),
    ):
        config = tmp_path / part / "config.json"
        original = config.read_text()
        config.write_text(json.dumps({**json.loads(original), name: value}))
        message = message_of(
            CheckpointError,
            lambda: load_components(CARD, tmp_path, device=CPU, dtype=torch.float32),
        )
        if f"{config} has {name.replace('parameters', 'theta')}" not in message:
            wrong.append((part, name, message))
        config.write_text(original)
    assert wrong == []


def test_a_broken_folder_is_refused_by_name(tmp_path: Path) -> None:
    write, _ = LAYOUTS["library folder, sharded"]
    write(tmp_path)

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            locate_parts(CARD.files, tmp_path)

    index = next((tmp_path / "transformer").glob("*.index.json"))
    kept = index.read_text()
    weight_map = json.loads(kept)["weight_map"]
    for broken, named in (
        ("{", "not an index of shards"),
        ("[]", "not an index of shards"),
        (json.dumps({"weight_map": {"a": "../x.safetensors"}}), "not a file beside it"),
        (json.dumps({"weight_map": {"a": 1}}), "not a file beside it"),
        (
            json.dumps({"weight_map": weight_map | {"a": "gone.safetensors"}}),
            r"no weight file at .*gone\.safetensors",
        ),
    ):
        index.write_text(broken)
        refused(named)
    index.write_text(kept)
    first, second = sorted(set(weight_map.values()))[:2]
    shutil.copy(tmp_path / "transformer" / first, tmp_path / "transformer" / second)
    refused(rf"{second}: .* is in {first} too")
    index.unlink()
    refused(r"must have one \.safetensors file or one index")
    for shard in (tmp_path / "transformer").glob("*.safetensors"):
        shard.unlink()
    (tmp_path / "transformer" / "pytorch_model.bin").write_bytes(b"")
    refused(r"pickles are refused: pytorch_model\.bin")
    shutil.rmtree(tmp_path / "text_conditioner")
    shutil.rmtree(tmp_path / "transformer")
    refused("has no transformer")


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    shutil.copy(SHIPPED / VAE, tmp_path / MAIN)
    with pytest.raises(CheckpointError, match="has no transformer; it has vae"):
        locate_parts(CARD.files, tmp_path)
    save_file(
        {"diffusion_model.blocks.0.mlp.layer1.lora_A.weight": torch.ones(2, 2)}, tmp_path / MAIN
    )
    with pytest.raises(CheckpointError, match="is a LoRA"):
        locate_parts(CARD.files, tmp_path)
    save_file({"unet.up.weight": torch.ones(2)}, tmp_path / MAIN)
    with pytest.raises(CheckpointError, match=r"unknown unet\.up\.weight"):
        find_parts(tmp_path / MAIN)
    save_file({"pos_embedder.seq": torch.ones(2)}, tmp_path / MAIN)
    with pytest.raises(CheckpointError, match="has no weights"):
        find_parts(tmp_path / MAIN)

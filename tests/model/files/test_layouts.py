"""One checkpoint in every layout is one checkpoint: the same weights, the same picture."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from model.card import Card
from model.engine.loading import load_engine
from model.engine.protocol import ImageReady
from model.errors import CheckpointError
from model.files.layouts import LIBRARY, ORIGINAL, locate, read_parts, tokenizer_folders
from model.network.load import load_components
from model.request import GenerationRequest
from model.resolved_request import resolve
from tests.support.every_layout import CARD, LAYOUTS, MAIN, QWEN, SHIPPED, VAE, all_in_one
from tests.support.every_layout import library_folder as write_library_folder

CPU = torch.device("cpu")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def picture(card: Card, folder: Path) -> NDArray[numpy.uint8]:
    engine = load_engine(
        card, folder, device="cpu", precision="float32", threads=1, token_budget=4096
    )
    asked = GenerationRequest(
        prompt="1girl, (blue hair:1.2), smile", steps=3, resolution="96x96", sampler="er_sde"
    )
    engine.admit("job", resolve(asked, card, seed=7))
    for _ in range(50):
        for event in engine.step():
            if isinstance(event, ImageReady):
                return event.pixels
    raise AssertionError("no picture came")


@cache
def shipped_picture() -> bytes:
    made = picture(CARD, SHIPPED)
    assert made.std() > 10, "a flat picture would prove nothing"
    return made.tobytes()


@each_layout
def test_the_same_request_gives_the_same_picture(layout: str, tmp_path: Path) -> None:
    write, card = LAYOUTS[layout]
    write(tmp_path)
    assert picture(card, tmp_path).tobytes() == shipped_picture()


def test_parts_in_the_transformers_file_win_over_files_beside_it(tmp_path: Path) -> None:
    all_in_one(tmp_path)
    for path in (QWEN, VAE):
        shutil.copy(SHIPPED / path, tmp_path / path)
    located = locate(CARD.files, tmp_path)
    assert {located.text_encoder.path, located.vae.path} == {tmp_path / MAIN}
    assert located.text_encoder.prefix == "text_encoders.qwen3_06b.transformer.model."


def test_where_parts_are_and_how_they_are_written_is_told(tmp_path: Path) -> None:
    write_library_folder(tmp_path)
    located = locate(CARD.files, tmp_path)
    assert located.transformer.path == tmp_path / "transformer"
    assert located.conditioner.path == tmp_path / "text_conditioner"
    assert located.vae.layout == located.text_encoder.layout == LIBRARY
    assert located.vae.config["num_res_blocks"] == CARD.vae.num_res_blocks
    assert tokenizer_folders(CARD.files, tmp_path) == (
        tmp_path / "tokenizer",
        tmp_path / "t5_tokenizer",
    )
    shipped = locate(CARD.files, SHIPPED)
    assert shipped.transformer.layout == shipped.vae.layout == ORIGINAL
    assert shipped.transformer.prefix == shipped.conditioner.prefix == "net."


def test_the_hash_is_the_files_or_made_of_all_files(tmp_path: Path) -> None:
    write_library_folder(tmp_path)
    hashes = {
        load_components(CARD, folder, device=CPU, dtype=torch.float32).sha256
        for folder in (SHIPPED, tmp_path, tmp_path)
    }
    assert len(hashes) == 2
    assert all(len(digest) == 64 for digest in hashes)


def spoil(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("transformer", {"rope_scale": [1.0, 3.0, 3.0]}),
        ("text_conditioner", {"min_sequence_length": 512}),
        ("text_encoder", {"rms_norm_eps": 1e-5}),
        ("text_encoder", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
        ("vae", {"latents_mean": [0.0] * 16}),
        ("vae", {"temperal_downsample": [True, True, True]}),
    ],
)
def test_a_folders_settings_must_be_the_cards(
    part: str, change: dict[str, object], tmp_path: Path
) -> None:
    write_library_folder(tmp_path)
    spoil(tmp_path / part / "config.json", **change)
    (name,) = change
    named = rf"{part}.config\.json has {name.replace('parameters', 'theta')}"
    with pytest.raises(CheckpointError, match=named):
        load_components(CARD, tmp_path, device=CPU, dtype=torch.float32)


def test_a_broken_folder_is_refused_by_name(tmp_path: Path) -> None:
    write, _ = LAYOUTS["library folder, sharded"]
    write(tmp_path)

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            locate(CARD.files, tmp_path)

    index = next((tmp_path / "transformer").glob("*.index.json"))
    kept = index.read_text()
    weight_map = json.loads(kept)["weight_map"]
    for broken, named in (
        ("{", "no index of shards"),
        ("[]", "no index of shards"),
        (json.dumps({"weight_map": {"a": "../x.safetensors"}}), "no file beside it"),
        (json.dumps({"weight_map": {"a": 1}}), "no file beside it"),
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
    with pytest.raises(CheckpointError, match="has no transformer; it holds vae"):
        locate(CARD.files, tmp_path)
    save_file(
        {"diffusion_model.blocks.0.mlp.layer1.lora_A.weight": torch.ones(2, 2)}, tmp_path / MAIN
    )
    with pytest.raises(CheckpointError, match="is a LoRA"):
        locate(CARD.files, tmp_path)
    save_file({"unet.up.weight": torch.ones(2)}, tmp_path / MAIN)
    with pytest.raises(CheckpointError, match=r"unknown unet\.up\.weight"):
        read_parts(tmp_path / MAIN)
    save_file({"pos_embedder.seq": torch.ones(2)}, tmp_path / MAIN)
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_parts(tmp_path / MAIN)

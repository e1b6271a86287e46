"""Requests with LoRAs through the engine: latents, shared forwards and failures."""

import copy
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.card import load_card, shipped_folder
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.protocol import EngineEvent, Failed, ImageReady
from model.files.lora import folder as lora_folder
from model.network.load import load_components
from model.resolved_request import LoraSet, ResolvedRequest
from tests.support.engines import drain, of, request, run, work_at_once
from tests.support.lora_writer import (
    Written,
    changed,
    linear,
    places,
    resolved,
    some_places,
    write_lora,
)
from tests.support.random_checkpoint import WrittenCheckpoint, write_checkpoint

SAMPLING: dict[str, Any] = {
    "prompt": "1girl, red hair", "width": 96, "height": 96, "steps": 4, "sampler": "euler",
}  # fmt: skip


def latents_of(engine: Engine, jobs: dict[str, ResolvedRequest]) -> dict[str, Tensor]:
    """Final latents by job; all jobs at once."""
    decoded: list[Tensor] = []

    def keep(latents: Tensor) -> "numpy.ndarray[Any, Any]":
        decoded.append(latents)
        return numpy.zeros((1, 8, 8, 3), numpy.uint8)

    engine._pipeline = replace(engine._pipeline, decode=keep)
    for job_id, wanted in jobs.items():
        engine.admit(job_id, wanted)
    events = drain(engine)
    assert not [event for event in events if isinstance(event, Failed)]
    order = [event.job_id for event in events if isinstance(event, ImageReady)]
    return dict(zip(order, decoded, strict=True))


def engine_at(written: WrittenCheckpoint, folder: Path, **options: Any) -> Engine:
    engine = load_engine(
        written.card, folder, device="cpu", precision="float32", threads=0, token_budget=8192,
        **options,
    )  # fmt: skip
    work_at_once(engine)  # so that equal sets always meet in pairs
    return engine


@pytest.mark.parametrize("method", ["lora_A_B", "lokr_w2_split", "loha", "dora_columns"])
def test_a_lora_gives_the_image_of_a_checkpoint_with_merged_weights(
    written: WrittenCheckpoint, tmp_path: Path, method: str
) -> None:
    at = some_places(written.made)
    lora = write_lora(tmp_path / "loras/a.safetensors", at, method=method, layout="comfy")
    merged = copy.deepcopy(written.made)
    for place, change in lora.changes.items():
        layer = linear(merged, place)
        layer.weight.data = changed(layer.weight.detach(), change, strength=0.8).float()
    (tmp_path / "merged").mkdir()
    write_checkpoint(tmp_path / "merged", merged)
    job = request(**SAMPLING)
    expected = latents_of(engine_at(written, tmp_path / "merged"), {"a": job})["a"]
    engine = engine_at(written, written.folder, lora_dir=tmp_path / "loras")
    with_lora = job.model_copy(update={"loras": (resolved(lora, 0.8),)})
    torch.testing.assert_close(
        latents_of(engine, {"a": with_lora})["a"], expected, atol=1e-5, rtol=1e-5
    )
    plain = latents_of(engine, {"a": job})["a"]
    assert (plain - expected).abs().max() > 0.01
    assert torch.equal(plain, latents_of(engine_at(written, written.folder), {"a": job})["a"])


def merged_tiny(folder: Path, lora: Written) -> None:
    """Copy the checkpoint that ships, with the LoRA's changes in its transformer's file."""
    shutil.copytree(shipped_folder(load_card("kirazuri-tiny")), folder)
    path = folder / load_card("kirazuri-tiny").files.transformer.path
    weights = load_file(path)
    for place, change in lora.changes.items():
        name = f"net.{place.original}.weight"
        weights[name] = changed(weights[name], change, strength=0.1).float()
    save_file(weights, path)


def test_the_shipped_checkpoint_with_a_lora_gives_the_image_of_its_merged_file(
    tmp_path: Path,
) -> None:
    card = load_card("kirazuri-tiny")
    models = load_components(card, None, device=torch.device("cpu"), dtype=torch.float32)
    at = [p for p in places(models) if p.part != "text_encoder" and ".1." in p.library]
    lora = write_lora(tmp_path / "loras/a.safetensors", at, layout="comfy")
    merged_tiny(tmp_path / "merged", lora)
    job = request(prompt=card.prompting.example, width=96, height=96, steps=4)
    with_lora = job.model_copy(update={"loras": (resolved(lora, 0.1),)})
    found = {}
    for name, folder, wanted in (
        ("merged", tmp_path / "merged", job),
        ("lora", None, with_lora),
        ("plain", None, job),
    ):
        engine = load_engine(
            card, folder, device="cpu", precision="float32", threads=0, token_budget=8192,
            lora_dir=tmp_path / "loras",
        )  # fmt: skip
        found[name] = latents_of(engine, {"a": wanted})["a"]
    torch.testing.assert_close(found["lora"], found["merged"], atol=1e-4, rtol=0)
    assert (found["plain"] - found["merged"]).abs().max() > 0.05


@pytest.fixture(scope="module")
def four_sets(
    written: WrittenCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, LoraSet]]:
    """A folder and four sets of its files. Two sets also change the text encoder."""
    folder = tmp_path_factory.mktemp("loras")
    at = some_places(written.made)
    in_transformer = [place for place in at if place.part == "transformer"]
    a = resolved(write_lora(folder / "a.safetensors", at, seed=1), 0.5)
    b = resolved(write_lora(folder / "b.safetensors", in_transformer, seed=2, layout="comfy"), 0.5)
    return folder, {"none": (), "a": (a,), "b": (b,), "a and b": (a, b)}


def test_requests_with_different_loras_share_an_engine_and_keep_their_images(
    written: WrittenCheckpoint, four_sets: tuple[Path, dict[str, LoraSet]]
) -> None:
    folder, sets = four_sets
    jobs = {
        f"{name} {seed}": request(**SAMPLING, seed=seed, cfg_scale=2 + seed).model_copy(
            update={"loras": loras}
        )
        for seed in range(2)
        for name, loras in sets.items()
    }
    alone = {
        job_id: latents_of(engine_at(written, written.folder, lora_dir=folder), {"job": job})["job"]
        for job_id, job in jobs.items()
    }
    for cached_sets in (1, 2, 4):
        engine = engine_at(written, written.folder, lora_dir=folder, lora_cache_sets=cached_sets)
        together = latents_of(engine, jobs)
        assert engine.stats.evaluations == 2 * engine.stats.forwards  # pairs of equal sets
        for job_id in jobs:
            torch.testing.assert_close(together[job_id], alone[job_id], atol=1e-5, rtol=1e-5)
    first = [alone[f"{name} 0"] for name in sets]
    for i, one in enumerate(first):
        assert all((one - other).abs().max() > 1e-3 for other in first[:i])


def test_a_missing_or_changed_lora_fails_only_its_request(
    written: WrittenCheckpoint, four_sets: tuple[Path, dict[str, LoraSet]]
) -> None:
    folder, sets = four_sets
    (lora,) = sets["a"]
    engine = engine_at(written, written.folder, lora_dir=folder)
    wanted = {
        "lora_missing": lora.model_copy(update={"name": "nobody"}),
        "lora_changed": lora.model_copy(update={"sha256": "0" * 64}),
    }
    engine.admit("good", request(**SAMPLING))
    for code, broken in wanted.items():
        engine.admit(code, request(**SAMPLING).model_copy(update={"loras": (broken,)}))
    events: list[EngineEvent] = drain(engine)
    for code in wanted:
        (failed,) = of(Failed, events, code)
        assert (failed.code, failed.is_retryable) == (code, False)
        assert str(folder) not in failed.detail
    assert of(ImageReady, events, "good")


def test_a_file_that_changes_during_its_request_fails_the_request(
    written: WrittenCheckpoint, tmp_path: Path
) -> None:
    """With a cache of one set, a running request needs the file again."""
    at = [place for place in some_places(written.made) if place.part == "transformer"]
    lora = resolved(write_lora(tmp_path / "a.safetensors", at))
    engine = engine_at(written, written.folder, lora_dir=tmp_path, lora_cache_sets=1)
    engine.admit("changing", request(**SAMPLING).model_copy(update={"loras": (lora,)}))
    while not engine.stats.forwards:
        engine.step()
    write_lora(tmp_path / "a.safetensors", at, seed=9)
    engine._pipeline.loras._transformer._sets.clear()
    engine._pipeline.loras.use_in_transformer(())
    engine.admit("plain", request(**SAMPLING))
    events = drain(engine)
    (failed,) = of(Failed, events, "changing")
    assert failed.code == "lora_changed"
    assert of(ImageReady, events, "plain")


def test_hashing_a_lora_stops_no_other_request(
    written: WrittenCheckpoint,
    four_sets: tuple[Path, dict[str, LoraSet]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even a request with a LoRA whose hash is known."""
    folder, sets = four_sets
    known, new = sets["a"], sets["b"]
    may_hash, has_hashed = threading.Event(), threading.Event()

    def slow_hash(path: Path) -> str:
        may_hash.wait(60)
        has_hashed.set()
        return hash_file(path)

    hash_file = lora_folder._hash
    engine = engine_at(written, written.folder, lora_dir=folder)
    run(engine, {"first use": request(**SAMPLING).model_copy(update={"loras": known})})
    monkeypatch.setattr(lora_folder, "_hash", slow_hash)
    engine.admit("slow", request(**SAMPLING).model_copy(update={"loras": new}))
    engine.admit("plain", request(**SAMPLING))
    engine.admit("known", request(**SAMPLING).model_copy(update={"loras": known}))
    events: list[EngineEvent] = []
    while len(of(ImageReady, events, "plain") + of(ImageReady, events, "known")) < 2:
        events += engine.step()
    assert not has_hashed.is_set()
    may_hash.set()
    assert of(ImageReady, drain(engine), "slow")

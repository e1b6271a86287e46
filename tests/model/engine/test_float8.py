"""An engine that may compute some requests in float8: which, and what the others notice."""

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from model.card import load_card
from model.engine import loading
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.protocol import EAGER, FLOAT8, EngineEvent, Failed, ImageReady, Started
from model.errors import DeviceMissing
from model.network.load import Components
from model.network.transformer.float8 import float8_bytes, keep_float8
from model.resolved_request import ResolvedRequest
from tests.support.engines import of, request, run, work_at_once
from tests.support.lora_writer import resolved, some_places, write_lora
from tests.support.random_checkpoint import WrittenCheckpoint
from tests.support.simulated_accelerator import simulated_accelerator
from training.evaluation.evaluate import Setting, generate, unseen_avatars
from training.evaluation.evaluate import request as of_avatar
from training.evaluation.rules import read_colors
from training.pictures.captions import prompt

SMALL: dict[str, Any] = {"prompt": "1girl, smile", "width": 64, "height": 48, "steps": 7}


def is_fast(request: ResolvedRequest) -> bool:
    return request.quality == "fast"


def engine_of(written: WrittenCheckpoint, **options: Any) -> Engine:
    return load_engine(
        written.card, written.folder,
        **{"device": "cpu", "precision": "float32", "threads": 1, "token_budget": 8192, **options},
    )  # fmt: skip


def paths_of(events: list[EngineEvent], job_id: str) -> list[str]:
    return [event.path for event in of(Started, events, job_id)]


def pixels_of(events: list[EngineEvent], job_id: str) -> Any:
    assert not [event for event in events if isinstance(event, Failed)]
    (image,) = of(ImageReady, events, job_id)
    return image.pixels.astype(int)


def test_only_what_allows_it_and_need_not_repeat_is_float8(written: WrittenCheckpoint) -> None:
    exact, fast = request(**SMALL), request(**SMALL, quality="fast")
    repeating = fast.model_copy(update={"deterministic": True})
    jobs = {"exact": exact, "fast": fast, "repeating": repeating}
    plain, engine = engine_of(written), engine_of(written, takes_float8=is_fast)
    expected = {name: run(plain, {name: one}) for name, one in jobs.items()}
    alone = {name: run(engine, {name: one}) for name, one in jobs.items()}
    for name in jobs:
        assert paths_of(expected[name], name) == [EAGER]
        assert paths_of(alone[name], name) == [FLOAT8 if name == "fast" else EAGER]
        difference = numpy.abs(pixels_of(alone[name], name) - pixels_of(expected[name], name))
        if name == "fast":
            assert 0 < difference.mean() < 4
        else:
            assert difference.max() == 0
    together = run(engine, jobs)
    assert numpy.array_equal(
        pixels_of(together, "repeating"), pixels_of(expected["repeating"], "repeating")
    )
    assert numpy.abs(pixels_of(together, "exact") - pixels_of(alone["exact"], "exact")).max() <= 1


def test_its_weights_count_as_memory(components: Components, written: WrittenCheckpoint) -> None:
    parts = replace(components, transformer=copy.deepcopy(components.transformer))
    limits = 1024, 10**9
    before = loading._decoding_room(written.card, parts, torch.float32, limits)
    keep_float8(parts.transformer)
    after = loading._decoding_room(written.card, parts, torch.float32, limits)
    assert before - after == float8_bytes(parts.transformer) > 0


def test_a_lora_changes_float8_and_leaves_nothing_behind(
    written: WrittenCheckpoint, tmp_path: Path
) -> None:
    lora = resolved(write_lora(tmp_path / "a.safetensors", some_places(written.made)), 0.5)
    fast = request(**SMALL, quality="fast")
    styled = fast.model_copy(update={"loras": (lora,)})
    engine = engine_of(written, takes_float8=is_fast, lora_dir=tmp_path)
    before, with_it, after, again = (
        pixels_of(run(engine, {"it": one}), "it") for one in (fast, styled, fast, styled)
    )
    assert not numpy.array_equal(before, with_it)
    assert numpy.array_equal(before, after)
    assert numpy.array_equal(with_it, again)


def test_a_failure_of_float8_begins_its_pictures_anew_exactly(
    written: WrittenCheckpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fast = request(**SMALL, quality="fast")
    expected = pixels_of(run(engine_of(written), {"a": fast}), "a")
    engine = engine_of(written, takes_float8=is_fast)

    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch, "_scaled_mm", broken)
    caplog.set_level(logging.WARNING)
    events = run(engine, {"a": fast})
    assert paths_of(events, "a") == [FLOAT8, EAGER]
    assert numpy.array_equal(pixels_of(events, "a"), expected)
    assert paths_of(run(engine, {"b": fast}), "b") == [EAGER]
    lines = [line for line in caplog.messages if "float8 is not used any more" in line]
    assert len(lines) == 1


def test_a_device_that_cannot_is_refused_at_the_start(
    written: WrittenCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("torch._scaled_mm is only supported on newer devices")

    monkeypatch.setattr(torch, "_scaled_mm", refused)
    engine_of(written)
    with pytest.raises(DeviceMissing, match=r"KIRAZURI_EXPERIMENTAL=float8.*float32.*newer dev"):
        engine_of(written, takes_float8=is_fast)


def test_an_accelerator_gives_the_cpus_pictures(written: WrittenCheckpoint) -> None:
    fast = request(**SMALL, quality="fast")
    expected = pixels_of(run(engine_of(written, takes_float8=is_fast), {"it": fast}), "it")
    with simulated_accelerator():
        engine = engine_of(written, device="sim:0", takes_float8=is_fast)
        work_at_once(engine)
        events = run(engine, {"it": fast})
    assert paths_of(events, "it") == [FLOAT8]
    assert numpy.abs(pixels_of(events, "it") - expected).max() <= 1


def test_the_shipped_checkpoint_still_draws_what_is_asked_for() -> None:
    card = load_card("kirazuri-tiny")
    engine = load_engine(
        card, None, device="cpu", precision="float32", threads=1, token_budget=8192,
        takes_float8=is_fast,
    )  # fmt: skip
    setting = Setting("square", "er_sde", None, 4.0, "fast")
    avatars = unseen_avatars(3)
    jobs = [of_avatar(card, prompt(one), setting=setting, seed=1) for one in avatars]
    for avatar, image in zip(avatars, generate(engine, jobs), strict=True):
        seen = read_colors(image)
        assert {name: getattr(avatar, name) for name in seen} == seen

"""Work beside the steps: a neighbour's prompts, noise, upscaling and pixels never stop them."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.engine.beside.side_work import SideThread
from model.engine.engine import Engine
from model.engine.protocol import EngineEvent, Failed, Finished, ImageReady, Preview, StepDone
from model.network.text.encoder import EncodedPrompt
from model.network.transformer.forward import TextKeys
from model.resolved_request import ResolvedHires
from model.sampling import noise
from tests.support.engines import AnalyticModel, drain, of, pipeline_of, request
from tests.support.velocities import read_context

CPU = torch.device("cpu")
LONGEST = 60.0


class SlowModel(AnalyticModel):
    """Waits in the marked prompt's encoding, or with every decoding, until it may go on."""

    def __init__(self, *, where: str) -> None:
        super().__init__()
        self.where = where
        self.may_go_on = threading.Event()
        self.has_begun = threading.Event()
        self.threads: dict[str, str] = {}

    def _wait(self, place: str) -> None:
        self.threads[place] = threading.current_thread().name
        if place == self.where:
            self.has_begun.set()
            assert self.may_go_on.wait(LONGEST)

    def encode(self, text: str) -> EncodedPrompt:
        self._wait("encode" if text == "slow" else "other")
        return super().encode(text)

    def read_text(self, prompt: EncodedPrompt, _: Any = None) -> TextKeys:
        self._wait("read" if prompt.qwen_count == len("slow") else "other")
        return read_context(prompt)

    def decode(self, latents: Tensor) -> Any:
        self._wait("decode")
        return super().decode(latents)

    def encode_image(self, pixels: Tensor) -> Tensor:
        self._wait("upscale")
        return torch.zeros(1, 16, 1, pixels.shape[-2] // 8, pixels.shape[-1] // 8)


def engine_beside(model: SlowModel | AnalyticModel) -> Engine:
    reading, finishing = SideThread("reading", CPU), SideThread("finishing", CPU)
    pipeline = pipeline_of(model)
    if isinstance(model, SlowModel):
        pipeline = replace(pipeline, read_text=model.read_text, encode_image=model.encode_image)
    return Engine(pipeline, token_budget=8192, reading=reading, finishing=finishing)


@pytest.fixture(params=["encode", "read", "upscale", "decode"])
def model(request: pytest.FixtureRequest) -> Iterator[SlowModel]:
    made = SlowModel(where=request.param)
    yield made
    made.may_go_on.set()


SLOW: dict[str, Any] = {"prompt": "slow", "steps": 1, "cfg_scale": 1}
HIRES = ResolvedHires(scale=2, width=128, height=128, steps=1, strength=0.5, upscaler="lanczos")


def test_steps_go_on_while_a_neighbour_waits_for_work_beside_them(model: SlowModel) -> None:
    engine = engine_beside(model)
    events: list[EngineEvent] = []
    engine.admit("other", request(steps=30))
    while not of(StepDone, events, "other"):
        events += engine.step()
    engine.admit("neighbour", request(**SLOW, hires=HIRES))
    while len(of(StepDone, events, "other")) < 30:
        events += engine.step()
    assert model.has_begun.wait(LONGEST)
    assert not of(ImageReady, events, "neighbour")
    assert not of(Finished, events, "neighbour")
    model.may_go_on.set()
    events += drain(engine)
    for job_id in ("neighbour", "other"):
        assert [type(e) for e in events if e.job_id == job_id][-2:] == [ImageReady, Finished]
    places = {place: name.rpartition("_")[0] for place, name in model.threads.items()}
    assert places == {
        "encode": "reading", "read": "reading", "other": "reading", "upscale": "finishing",
        "decode": "finishing",
    }  # fmt: skip


def test_steps_go_on_while_a_neighbours_noise_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, may_draw, drawn_in = noise._draw, threading.Event(), list[str]()

    def slow_draw(generator: Any, shape: tuple[int, ...], device: torch.device) -> Tensor:
        drawn_in.append(threading.current_thread().name)
        assert shape[-1] == 8 or may_draw.wait(LONGEST)
        return draw(generator, shape, device)

    monkeypatch.setattr(noise, "_draw", slow_draw)
    engine = engine_beside(AnalyticModel())
    events: list[EngineEvent] = []
    engine.admit("other", request(steps=30, sampler="euler"))
    while not of(StepDone, events, "other"):
        events += engine.step()
    engine.admit("neighbour", request(width=128))
    while len(of(StepDone, events, "other")) < 30:
        events += engine.step()
    assert not of(StepDone, events, "neighbour")
    may_draw.set()
    assert of(Finished, drain(engine), "neighbour")
    assert all(name.startswith("noise") for name in drawn_in)


def test_a_cancelled_request_leaves_nothing_behind(model: SlowModel) -> None:
    engine = engine_beside(model)
    engine.admit("a", request(**SLOW, hires=HIRES))
    while not model.has_begun.is_set():
        engine.step()
    engine.cancel("a")
    engine.admit("a", request(prompt="quick", steps=2, seed=9))  # the same id again
    model.may_go_on.set()
    events = drain(engine)
    assert [event.seed for event in of(ImageReady, events, "a")] == [9]
    assert len(of(Finished, events, "a")) == 1


def test_faults_beside_the_steps_fail_only_their_request() -> None:
    model = AnalyticModel()

    def decode(latents: Tensor) -> Any:
        if len(model.latents) == 1:
            raise RuntimeError("no such kernel")
        return model.decode(latents)

    engine = engine_beside(model)
    engine._pipeline = replace(engine._pipeline, decode=decode)
    model.latents.append(torch.zeros(1))
    engine.admit("bad", request(steps=1))
    engine.admit("unreadable", request(prompt="unreadable"))
    events = drain(engine)
    assert {e.job_id: e.code for e in events if isinstance(e, Failed)} == {
        "bad": "engine_error",
        "unreadable": "bad_prompt",
    }


def test_previews_come_before_the_end_and_in_order() -> None:
    engine = engine_beside(AnalyticModel())
    engine.admit("a", request(steps=20, previews=True))
    events = drain(engine)
    steps = [event.step for event in of(Preview, events, "a")]
    assert len(steps) >= 8
    assert steps == sorted(steps)
    assert isinstance(events[-1], Finished)

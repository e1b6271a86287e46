"""Work beside the steps: a neighbour's prompts and pixels never stop them."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.engine.beside import SideThread
from model.engine.engine import Engine
from model.engine.protocol import EngineEvent, Failed, Finished, ImageReady, Preview, StepDone
from model.network.text_encoder import EncodedPrompt
from tests.support.engines import AnalyticModel, drain, of, pipeline_of, request

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

    def decode(self, latents: Tensor) -> Any:
        self._wait("decode")
        return super().decode(latents)


def engine_beside(model: AnalyticModel) -> Engine:
    reading, finishing = SideThread("reading", CPU), SideThread("finishing", CPU)
    pipeline = pipeline_of(model)
    return Engine(pipeline, token_budget=8192, reading=reading, finishing=finishing)


@pytest.fixture(params=["encode", "decode"])
def model(request: pytest.FixtureRequest) -> Iterator[SlowModel]:
    made = SlowModel(where=request.param)
    yield made
    made.may_go_on.set()


def test_steps_go_on_while_a_neighbour_is_encoded_or_decoded(model: SlowModel) -> None:
    engine = engine_beside(model)
    events: list[EngineEvent] = []
    engine.admit("other", request(steps=30))
    while not of(StepDone, events, "other"):
        events += engine.step()
    engine.admit("neighbour", request(prompt="slow", steps=1, cfg_scale=1))
    while len(of(StepDone, events, "other")) < 30:
        events += engine.step()
    assert model.has_begun.wait(LONGEST)
    assert not of(ImageReady, events, "neighbour")
    assert not of(Finished, events, "neighbour")
    model.may_go_on.set()
    events += drain(engine)
    for job_id in ("neighbour", "other"):
        assert [type(e) for e in events if e.job_id == job_id][-2:] == [ImageReady, Finished]
    assert model.threads["encode"].startswith("reading")
    assert model.threads["decode"].startswith("finishing")


def test_a_cancelled_request_leaves_nothing_behind(model: SlowModel) -> None:
    engine = engine_beside(model)
    engine.admit("a", request(prompt="slow", steps=1))
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

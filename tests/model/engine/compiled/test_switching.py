"""The engine between its two paths: no picture changes its path, and no failure loses one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

from model.card import load_card
from model.engine.compiled import paths as compiled_paths
from model.engine.compiled.paths import Paths
from model.engine.engine import Engine
from model.engine.loading import Compiling, load_engine
from model.engine.protocol import COMPILED, EAGER, Failed, Finished, ImageReady, Started
from model.network.transformer.forward import Row
from model.resolved_request import ResolvedRequest
from tests.support.engines import AnalyticModel, drain, of, pipeline_of, request, run
from tests.support.trials import prompt_trial
from tests.support.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
"""Raised by what the compiler imports."""


class Switched(Paths):
    """Two paths without a compiler. `forwards` has the path and the rows of each forward."""

    def __init__(self, model: AnalyticModel) -> None:
        super().__init__()
        self.is_ready = False
        self.faults: list[Exception] = []
        self.fault: Exception | float | None = None
        self.forwards: list[tuple[str, int]] = []
        self._path = EAGER
        plain = pipeline_of(model)
        self._velocity = plain.velocity
        self.engine = Engine(replace(plain, paths=self, velocity=self.velocity), token_budget=8192)

    def choose(self, request: ResolvedRequest) -> str:
        return COMPILED if self.is_ready and not request.deterministic else EAGER

    def use(self, path: str) -> None:
        self._path = path

    def distrust(self, path: str, failure: Exception) -> None:
        assert path == COMPILED
        self.faults.append(failure)
        self.is_ready = False

    def velocity(self, rows: Sequence[Row]) -> Tensor:
        self.forwards.append((self._path, len(rows)))
        found = self._velocity(rows)
        if self._path == EAGER:
            return found
        if isinstance(self.fault, Exception) and len(self.forwards) > 2:
            raise self.fault
        return found * (self.fault if isinstance(self.fault, float) else 1 + 1e-6)


@pytest.fixture
def paths() -> Switched:
    return Switched(AnalyticModel())


def test_a_picture_keeps_its_path_and_shares_no_forward_with_the_other(paths: Switched) -> None:
    engine = paths.engine
    early, late = (request(seed=seed, steps=6, sampler="euler") for seed in (1, 2))
    engine.admit("early", early)
    events = engine.step()
    paths.is_ready = True
    engine.admit("late", late)
    engine.admit("same", late.model_copy(update={"seed": 3}))
    engine.admit("repeating", late.model_copy(update={"deterministic": True}))
    events += drain(engine)
    path_of = {event.job_id: event.path for event in events if isinstance(event, Started)}
    assert path_of == {
        "early": EAGER, "late": COMPILED, "same": COMPILED, "repeating": EAGER,
    }  # fmt: skip
    assert len(of(Finished, events, "late")) == 1
    rows = {
        path: sum(n for used, n in paths.forwards if used == path) for path in (EAGER, COMPILED)
    }
    assert rows == {EAGER: 2 * 2 * 6, COMPILED: 2 * 2 * 6}
    assert (COMPILED, 4) in paths.forwards  # two pictures of the same path do share forwards


@pytest.mark.parametrize("fault", [RuntimeError("no such kernel"), float("nan")])
def test_a_failure_of_compiled_code_begins_its_pictures_anew_eagerly(
    paths: Switched, fault: Exception | float
) -> None:
    wanted = {str(seed): request(seed=seed, steps=5, num_images=2) for seed in (1, 2)}
    expected = run(Switched(AnalyticModel()).engine, wanted)
    paths.is_ready, paths.fault = True, fault
    events = run(paths.engine, wanted)
    assert not [event for event in events if isinstance(event, Failed)]
    assert paths.faults
    assert {path for path, _ in paths.forwards[-5:]} == {EAGER}
    for job_id in wanted:
        assert [event.path for event in of(Started, events, job_id)] == [COMPILED, EAGER]
        before, after = (of(ImageReady, found, job_id) for found in (expected, events))
        assert len(before) == len(after) == 2
        for one, other in zip(before, after, strict=True):
            assert numpy.array_equal(one.pixels, other.pixels)


def test_a_shortage_of_memory_is_no_fault_of_the_code(paths: Switched) -> None:
    paths.is_ready, paths.fault = True, torch.OutOfMemoryError("full")
    events = run(paths.engine, {"it": request(steps=3)})
    assert [event.code for event in events if isinstance(event, Failed)] == ["out_of_memory"]
    assert paths.faults == []


def test_the_same_bytes_before_during_and_after_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the shipped checkpoint and the process that tries code.

    The graphs run as they are traced, not as machine code.
    """
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(compiled_paths, "trial_command", prompt_trial)
    card = load_card("kirazuri-tiny")
    wanted = request(width=64, height=64, steps=3, cfg_scale=4.0, prompt="1girl, blue hair")
    repeating = wanted.model_copy(update={"deterministic": True})
    try:
        engine = load_engine(
            card, None, device="cpu", precision="float32", threads=1, token_budget=8192,
            compiling=Compiling("always", tmp_path, backend="eager"),
        )  # fmt: skip
        state = engine.stats.compiled
        plain, before, during = (pictures(engine, one)[1] for one in (wanted, repeating, repeating))
        assert state.name != "ready", "nothing was computed during the compilation"
        wait_until(lambda: state.name != "compiling", seconds=240)
        assert (state.name, state.detail) == ("ready", "compiled code is right"), state
        path, compiled = pictures(engine, wanted)
        assert path == COMPILED
        path, after = pictures(engine, repeating)
        assert path == EAGER
    finally:
        torch.compiler.set_stance("default")
        torch.compiler.reset()
    assert before == during == after
    difference = numpy.frombuffer(plain, numpy.uint8).astype(int)
    difference -= numpy.frombuffer(compiled, numpy.uint8)
    assert abs(difference).max() <= 1  # as docs/reproducibility.md says


def pictures(engine: Engine, wanted: ResolvedRequest) -> tuple[str, bytes]:
    """The path of a request, and its pixels."""
    events = run(engine, {"it": wanted})
    (start,), (image,) = of(Started, events, "it"), of(ImageReady, events, "it")
    return start.path, image.pixels.tobytes()

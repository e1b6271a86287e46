"""Measures how long the step loop pauses for a neighbour, beside a picture that samples on.

Run by `kirazuri bench schedule --pauses`. A pause is what the engine's thread computes in one step
outside of the forward. It is processor time of that thread, so that threads that share its cores do
not count. Waiting is counted: how often it waited for another thread although it had work.
"""

import hashlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from model.bench.lora import tiny, write_example
from model.card import load_card
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.protocol import Failed, Finished
from model.request import GenerationRequest
from model.resolved_request import ResolvedHires, ResolvedLora, ResolvedRequest, resolve_request

_OTHER = "the picture that samples on"
_STEPS = 100_000
"""Steps of the picture that samples on: more than any measurement takes."""


@dataclass
class _Step:
    """Seconds of processor time of the engine's thread, and how often it waited."""

    forward: float = 0.0
    outside: float = 0.0
    waits: int = 0


class Meter:
    """Times the steps of an engine: its forwards, what is outside of them, and waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._forward = 0.0
        self._waits = 0
        velocity = engine._velocity._velocity

        def timed(rows: Any) -> torch.Tensor:
            began = time.thread_time()
            result = velocity(rows)
            self._forward += time.thread_time() - began
            return result

        engine._velocity._velocity = timed

    def step(self) -> tuple[_Step, Sequence[Any]]:
        """Run a step."""
        self._forward, self._waits = 0.0, 0
        began = time.thread_time()
        with self._counted_waits():
            events = self._engine.step()
        outside = time.thread_time() - began - self._forward
        return _Step(self._forward, outside, self._waits), events

    @contextmanager
    def _counted_waits(self) -> Iterator[None]:
        result, mine = Future.result, threading.get_ident()

        def counting(future: Any, timeout: float | None = None) -> Any:
            if threading.get_ident() == mine and not future.done():
                self._waits += 1
            return result(future, timeout)

        Future.result = counting  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Future.result = result  # type: ignore[method-assign]


def measure(rounds: int, card_name: str = "kirazuri-tiny") -> list[dict[str, Any]]:
    """A row for every kind of neighbour: the longest pause of one step, median of the rounds."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        engine, neighbours = _engine_with_neighbours(Path(folder), card_name)
        meter, ids = Meter(engine), iter(range(1_000_000))
        base = resolve_request(GenerationRequest(prompt="1girl"), load_card(card_name), seed=1)
        other = base.model_copy(update={"steps": _STEPS, "sampler": "euler", "cfg_scale": 4.0})
        engine.admit(_OTHER, other)
        for _ in range(20):
            meter.step()
        alone = [meter.step()[0] for _ in range(40)]
        step = statistics.median(one.forward + one.outside for one in alone)
        usual = statistics.median(one.outside for one in alone)
        rows = [_row("nobody", [max(one.outside for one in alone) - usual], step, [0])]
        for name, make in neighbours.items():
            longest, waits = [], []
            for number in range(rounds + 1):
                steps = _steps_of(meter, engine, f"{name} {next(ids)}", make(number))
                if number:  # the first warms up
                    longest.append(max(one.outside for one in steps) - usual)
                    waits.append(sum(one.waits for one in steps))
            rows.append(_row(name, longest, step, waits))
    return rows


def _steps_of(meter: Meter, engine: Engine, job_id: str, wanted: ResolvedRequest) -> list[_Step]:
    """Every step from a neighbour's arrival to its end."""
    engine.admit(job_id, wanted)
    steps = []
    while True:
        step, events = meter.step()
        steps.append(step)
        if failed := [event for event in events if isinstance(event, Failed)]:
            raise RuntimeError(f"{failed[0].job_id}: {failed[0].code} {failed[0].detail}")
        if any(isinstance(event, Finished) and event.job_id == job_id for event in events):
            return steps


def _row(name: str, seconds: Sequence[float], step: float, waits: Sequence[int]) -> dict[str, Any]:
    pause = statistics.median(seconds)
    return {
        "neighbour": name,
        "longest pause ms": 1000 * pause,
        "share of a step": f"{pause / step:.1%}",
        "waits": max(waits),
    }


def _engine_with_neighbours(
    folder: Path, card_name: str
) -> tuple[Engine, dict[str, Callable[[int], ResolvedRequest]]]:
    card = load_card(card_name)
    path = folder / "example.safetensors"
    write_example(path, tiny(torch.device("cpu"), torch.float32).transformer, method="lora", rank=8)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    asked = GenerationRequest(prompt="1girl, smile", steps=2, sampler="euler")
    base = resolve_request(asked, card, seed=2)
    photo = numpy.full((base.height, base.width, 3), 99, numpy.uint8)
    engine = load_engine(
        card, None, device="cpu", precision="float32", threads=1, token_budget=1,
        read_image=lambda _: photo, lora_dir=folder, lora_cache_sets=2,
    )  # fmt: skip
    hires = ResolvedHires(
        scale=1.5, width=base.width * 3 // 2, height=base.height * 3 // 2, steps=2, strength=0.5,
        upscaler="lanczos",
    )  # fmt: skip

    def with_loras(number: int) -> ResolvedRequest:
        weight = (number + 1) / 1000  # another set each time
        return base.model_copy(
            update={"loras": (ResolvedLora(name="example", weight=weight, sha256=sha256),)}
        )

    def new_prompt(number: int, **update: Any) -> ResolvedRequest:
        fields = {"prompt": f"1girl, {number} ribbons", "seed": number, **update}
        return base.model_copy(update=fields)

    return engine, {
        "joins and finishes": new_prompt,
        "has previews": lambda number: new_prompt(number, previews=True, steps=8),
        "is upscaled in pixels": lambda number: new_prompt(number, hires=hires),
        "starts from a picture": lambda number: new_prompt(number, init_image="p", strength=0.9),
        "brings LoRAs": with_loras,
    }


def conditions(rounds: int) -> str:
    """What was measured."""
    return (
        "the longest pause of one step of the engine's thread, in its processor time outside of "
        f"the forward, beyond that of a usual step; median of {rounds}, one thread, float32"
    )

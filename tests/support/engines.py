"""Engines with an analytic model and with the shipped checkpoint."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy
import torch
from torch import Tensor

from model.card import load_card
from model.engine.beside.side_work import AtOnce
from model.engine.engine import Engine
from model.engine.loading import load_engine
from model.engine.pipeline import Pipeline
from model.engine.protocol import EngineEvent, ImageReady
from model.errors import PromptError
from model.network.text.encoder import EncodedPrompt
from model.resolved_request import ResolvedRequest
from tests.support.velocities import by_rows, read_context

SHARE = 0.6


class AnalyticModel:
    """Data ~ N(mean of the prompt, 0.6^2): velocity is exact, pixels are the latents, rounded."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[float]]] = []
        self.latents: list[Tensor] = []
        self.poison: float | None = None
        self.is_broken = False

    def encode(self, text: str) -> EncodedPrompt:
        if text == "unreadable":
            raise PromptError("weight nan at position 3", limit=10)
        context = torch.full((4, 2), float(len(text)) / 100)
        return EncodedPrompt(
            context,
            tokens=4,
            qwen_count=len(text),
            t5_count=len(text),
            max_tokens=9,
            is_cut=len(text) > 9,
        )

    def velocity(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == torch.float32
        self.calls.append((len(x), sigma.tolist()))
        if self.is_broken and len(x) > 2:
            raise RuntimeError("the device gave up")
        mean = context[:, 0, 0].view(-1, 1, 1, 1, 1)
        s = sigma.view(-1, 1, 1, 1, 1)
        a = 1 - s
        variance = (a * SHARE) ** 2 + s**2
        denoised = mean + a * SHARE**2 / variance * (x - a * mean)
        if self.poison is not None:
            denoised = torch.where(mean == self.poison, torch.nan, denoised)
        return (x - denoised) / s

    def decode(self, latents: Tensor) -> numpy.ndarray[Any, Any]:
        self.latents.append(latents)
        pixels = (latents[:, :3, 0].movedim(1, -1) * 40 + 128).round().clamp(0, 255)
        return pixels.to(torch.uint8).numpy()

    def preview(self, latents: Tensor) -> numpy.ndarray[Any, Any]:
        pixels: numpy.ndarray[Any, Any] = self.decode(latents)[0]
        return pixels


def engine_of(model: AnalyticModel, token_budget: int = 8192) -> Engine:
    return Engine(pipeline_of(model), token_budget=token_budget)


def work_at_once(engine: Engine) -> None:
    """Let all work beside the steps run in their thread, so that runs repeat."""
    engine._reading = engine._finishing = engine._merges._beside = AtOnce()


def pipeline_of(model: AnalyticModel) -> Pipeline:
    velocity = by_rows(model.velocity)
    return Pipeline(model.encode, read_context, velocity, model.decode, model.preview)


def request(**fields: Any) -> ResolvedRequest:
    base: dict[str, Any] = {
        "prompt": "1girl", "negative_prompt": "", "width": 64, "height": 64, "steps": 6,
        "cfg_scale": 4.0, "sampler": "er_sde", "scheduler": "simple", "seed": 1, "num_images": 1,
        "image_format": "png", "image_quality": 90, "metadata": "full",
    }  # fmt: skip
    return ResolvedRequest(**{**base, **fields})


def run(engine: Engine, jobs: dict[str, ResolvedRequest]) -> list[EngineEvent]:
    for job_id, wanted in jobs.items():
        engine.admit(job_id, wanted)
    return drain(engine)


def drain(engine: Engine) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    for _ in range(2000):
        events.extend(engine.step())
        if not engine._running:
            return events
    raise AssertionError("the engine does not finish")


def of(kind: type[Any], events: Iterable[EngineEvent], job_id: str) -> list[Any]:
    return [e for e in events if isinstance(e, kind) and e.job_id == job_id]


FIELDS: dict[str, Any] = {
    "prompt": "1girl, (blue hair:1.2), smile",
    "width": 128,
    "height": 128,
    "steps": 6,
    "seed": 42,
    "deterministic": True,
}


def tiny_engine() -> Engine:
    """The shipped checkpoint on one thread, because a test run has many processes."""
    return load_engine(
        load_card("kirazuri-tiny"),
        None,
        device="cpu",
        precision="float32",
        threads=1,
        token_budget=8192,
    )


def digest(events: Iterable[EngineEvent], job_id: str) -> str:
    """One hash of all pixels of a job."""
    pixels = [e.pixels for e in events if isinstance(e, ImageReady) and e.job_id == job_id]
    assert pixels
    return hashlib.sha256(b"".join(p.tobytes() for p in pixels)).hexdigest()

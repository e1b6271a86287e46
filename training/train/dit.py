"""Trains transformer, conditioner and text encoder together, by flow matching on cached latents."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.pictures.captions import prompt
from training.pictures.composition import EYE_PLACE, head_center, unit
from training.pictures.dataset import (
    SIZES,
    Size,
    latents_path,
    load_avatars,
    redrawn_path,
)
from training.pictures.tokenizers import load_tiny_tokenizers
from training.train import loop
from training.train.anima import Anima, build, load
from training.train.attention import PlainAttention, PlainTextAttention
from training.train.batches import CAPTIONS_PER_STEP, Batches, encode, latent_statistics

log = logging.getLogger(__name__)

SHIFT = 3.0

NOISES = 2  # noise levels per caption: encoding the text is as expensive as the picture
PEAK_RATE = 2e-3
WEIGHT_DECAY = 0.01
EYE_WEIGHT = 6.0  # eyes are small, and their colour is learnt last
EYE_REACH = (0.1, 0.12)  # half width and half height, in the composition's unit
WARM_UP = 200
REDRAWN_SHARE, REDRAW_FROM, REDRAW_STEPS, REDRAW_CFG = 0.2, 0.6, 6, 4.0
HOLD = 0.4


def sample_sigmas(count: int) -> Tensor:
    """Logit-normal noise levels with shift 3, one for each of `count` equal quantiles."""
    quantiles = (torch.randperm(count) + torch.rand(count)) / count
    u = torch.sigmoid(torch.special.ndtri(quantiles.clamp(1e-6, 1 - 1e-6)))
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def flow_loss(model: Anima, latents: Tensor, text: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Mean squared error of the velocity noise - x0, `NOISES` noise levels per picture."""
    with torch.autocast("cpu", torch.bfloat16):
        context = model.context(*text).repeat_interleave(NOISES, 0)
        x0 = latents.repeat_interleave(NOISES, 0)
        sigma, noise = sample_sigmas(len(x0)), torch.randn_like(x0)
        level = sigma[:, None, None, None, None]
        velocity = model((1 - level) * x0 + level * noise, sigma, context)
    weight = eye_weights(x0.shape[-2], x0.shape[-1])
    errors = (velocity - (noise - x0)).square()
    loss: Tensor = (weight * errors).mean() / weight.mean()
    return loss


@lru_cache
def eye_weights(height: int, width: int) -> Tensor:
    """Loss weight of each latent pixel (height, width): EYE_WEIGHT on the eyes, 1 elsewhere."""
    size = (8 * width, 8 * height)
    middle_x, middle_y = head_center(*size)
    x = (8 * torch.arange(width) + 4 - middle_x) / unit(*size)
    y = (8 * torch.arange(height)[:, None] + 4 - middle_y) / unit(*size)
    across = (x.abs() - EYE_PLACE[0]) / EYE_REACH[0]
    down = (y - EYE_PLACE[1]) / EYE_REACH[1]
    return torch.where(across**2 + down**2 <= 1, EYE_WEIGHT, 1.0)


def parameter_groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Optimiser groups: matrices with weight decay; norms, biases and embeddings without."""
    named = list(model.named_parameters())
    matrices = [
        p for n, p in named if p.ndim == 2 and "embed.weight" not in n and "embed_tokens" not in n
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    return [
        {"params": matrices, "weight_decay": WEIGHT_DECAY, "peak": rate},
        {"params": rest, "weight_decay": 0.0, "peak": rate},
    ]


def prepare(model: Anima, *, is_compiled: bool) -> None:
    """Make training steps faster without changing their results."""
    for block in model.transformer.transformer_blocks:
        block.attn1.set_processor(PlainAttention())
        block.attn2.set_processor(PlainAttention())
    for block in model.conditioner.blocks:
        block.self_attn.set_processor(PlainTextAttention())
        block.cross_attn.set_processor(PlainTextAttention())
    if is_compiled:
        parts = model.transformer.transformer_blocks, model.conditioner.blocks
        for block in (*parts[0], *parts[1], *model.text_encoder.layers):
            block.compile(dynamic=False)


def train(
    folder: Path, out: Path, *, minutes: float, seed: int, processes: int, rate: float = PEAK_RATE
) -> None:
    """Train all three networks; writes `out/dit.safetensors` and the log `out/dit.csv`."""
    loop.run_replicas(_train, (folder, out, minutes, seed, rate), processes)


def _train(
    rank: int, processes: int, folder: Path, out: Path, minutes: float, seed: int, rate: float
) -> None:
    torch.manual_seed(seed)  # same initial weights in all processes; the data differ by rank
    model = build(out)
    prepare(model, is_compiled=True)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, rate), lr=rate, betas=(0.9, 0.98), fused=True
    )
    average = loop.Average(model)
    gradients = loop.SharedGradients(model.parameters(), processes)
    state, facts = out / "dit.safetensors", {"step": 0.0, "seconds": 0.0, "cpu_seconds": 0.0}
    if state.exists():
        facts = loop.load_state(state, model, average, optimizer)
    step = int(facts["step"])
    torch.manual_seed(seed + 1 + rank + processes * step)
    batches = Batches(folder, out, np.random.default_rng((seed, rank, step)))
    clock = loop.Clock(minutes * 60, facts["seconds"], facts["cpu_seconds"])
    progress, saved, losses = clock.progress, clock.seconds, []
    while progress < 1:
        factor = loop.learning_rate_factor(step, progress, warm_up=WARM_UP, hold=HOLD)
        loop.set_learning_rate(optimizer, factor)
        gradients.clear()
        loss = flow_loss(model, *batches.next())
        loss.backward()  # type: ignore[no-untyped-call]
        progress = gradients.average(clock.progress)
        optimizer.step()
        average.update(model, step)
        step += 1
        losses.append(loss.item())
        if rank == 0 and (clock.seconds - saved > 60 or progress >= 1):
            facts = {"step": step, "seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds}
            loop.save_state(state, model, average, optimizer, **facts)
            samples = step * processes * CAPTIONS_PER_STEP * NOISES
            row = {name: round(value, 1) for name, value in facts.items()}
            row |= {"samples": samples, "loss": round(sum(losses) / len(losses), 4)}
            loop.write_row(out / "dit.csv", row)
            log.info("%s", row)
            saved, losses = clock.seconds, []


@torch.no_grad()
def sample(
    model: Anima, texts: Sequence[str], size: Size, out: Path, *, steps: int = 20, cfg: float = 4.0
) -> Tensor:
    """Sample normalised latents (B, 16, h, w) with Euler's method, for previews."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(texts), 16, 1, size[1] // 8, size[0] // 8, generator=generator)
    u = torch.linspace(1, 0, steps + 1)
    text = encode([*texts, *[""] * len(texts)], *load_tiny_tokenizers(out / "tokenizers"))
    return _finish(model, x, SHIFT * u / (1 + (SHIFT - 1) * u), text, cfg)


def _finish(
    model: Anima, x: Tensor, sigmas: Tensor, text: tuple[Tensor, Tensor, Tensor], cfg: float
) -> Tensor:
    """Integrate from `sigmas[0]` to 0; `text` has the prompts, then as many empty prompts."""
    with torch.autocast("cpu", torch.bfloat16):
        context = model.context(*text)
        for sigma, following in pairwise(sigmas):
            velocity = model(torch.cat([x, x]), sigma.expand(2 * len(x)), context)
            conditional, unconditional = velocity.chunk(2)
            x = x + (following - sigma) * (unconditional + cfg * (conditional - unconditional))
    return x[:, :, 0]


def redraw(folder: Path, out: Path, *, seed: int, processes: int) -> None:
    """Add noise to some of the latents and let the transformer denoise them.

    The results have the small errors of the transformer. The decoder is tuned on them to
    tolerate such errors.
    """
    for size in SIZES:
        shape = np.load(latents_path(folder, size), mmap_mode="r").shape
        shape = (int(shape[0] * REDRAWN_SHARE), *shape[1:])
        np.lib.format.open_memmap(redrawn_path(folder, size), "w+", np.float32, shape)
    loop.run_replicas(_redraw, (folder, out, seed), processes)


@torch.no_grad()
def _redraw(rank: int, processes: int, folder: Path, out: Path, seed: int) -> None:
    torch.manual_seed(seed + 11 + rank)
    model, tokenizers = load(out), load_tiny_tokenizers(out / "tokenizers")
    prepare(model, is_compiled=False)
    mean, std = latent_statistics(folder)
    for size in SIZES:
        redrawn = np.load(redrawn_path(folder, size), mmap_mode="r+")
        latents = np.load(latents_path(folder, size), mmap_mode="r")
        avatars = load_avatars(folder, size)
        for start in range(rank * 16, len(redrawn), processes * 16):
            end = min(start + 16, len(redrawn))
            x0 = ((torch.from_numpy(latents[start:end].copy()) - mean) / std)[:, :, None]
            texts = [prompt(avatar) for avatar in avatars[start:end]]
            text = encode([*texts, *[""] * len(texts)], *tokenizers)
            level = REDRAW_FROM * (0.5 + 0.5 * float(torch.rand(())))
            noisy = (1 - level) * x0 + level * torch.randn_like(x0)
            x = _finish(model, noisy, torch.linspace(level, 0, REDRAW_STEPS + 1), text, REDRAW_CFG)
            redrawn[start:end] = (x * std + mean).numpy()

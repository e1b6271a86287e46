"""Trains the VAE: encoder and decoder on crops, then on whole pictures, then only the decoder."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.pictures.composition import head_center
from training.pictures.dataset import (
    HELD_OUT,
    SHARES,
    SIZES,
    Size,
    latents_path,
    load_avatars,
    pictures_path,
    redrawn_path,
)
from training.train import loop
from training.train.frame_vae import LATENT_CHANNELS, FrameVae

log = logging.getLogger(__name__)

CROP = 64
CROPS_PER_STEP = 8
PICTURES_PER_STEP = 2
FACE_SHARE = 0.7  # share of the crops that lie around the face
KL_WEIGHT = 1e-3
LATENT_NOISE = 0.2  # decoder stage: up to this many standard deviations
REDRAWN_WEIGHT = 0.7  # decoder stage: share of steps on latents that the transformer finished
CROPS_RATE = 2.5e-3
PICTURES_RATE = 1.2e-3
DECODER_RATE = 1e-3

LossOfNext = Callable[[], tuple[Tensor, dict[str, float]]]


def reconstruction_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 of pixels, L1 of their differences for sharp lines, and squared error for outliers."""
    d = y - x
    across = (d[..., 1:] - d[..., :-1]).abs().mean()
    down = (d[:, :, 1:] - d[:, :, :-1]).abs().mean()
    return d.abs().mean() + 0.5 * (across + down) + 0.5 * d.square().mean()


def pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """Convert bytes (n, H, W, 3) to (n, 3, H, W) in [-1, 1], channels last in memory."""
    return (torch.from_numpy(np.array(pictures)).float() / 127.5 - 1).permute(0, 3, 1, 2)


def _crops(pictures: dict[Size, NDArray[np.uint8]], rng: np.random.Generator, count: int) -> Tensor:
    sizes = list(pictures)
    numbers = np.array([len(pictures[size]) - HELD_OUT for size in sizes])
    crops = np.empty((count, CROP, CROP, 3), np.uint8)
    for crop in crops:
        size = sizes[int(rng.choice(len(sizes), p=numbers / numbers.sum()))]
        picture = pictures[size][int(rng.integers(len(pictures[size]) - HELD_OUT))]
        left, top = _corner(size, rng)
        crop[:] = picture[top : top + CROP, left : left + CROP]
    return pixels(crops)


def _corner(size: Size, rng: np.random.Generator) -> tuple[int, int]:
    width, height = size
    if rng.random() < FACE_SHARE:
        spread = min(size) / 7
        center = np.array(head_center(width, height)) + rng.normal(0, spread, 2)
        left, top = (center - CROP / 2).round().astype(int)
    else:
        left, top = rng.integers(-8, width - CROP + 9), rng.integers(-8, height - CROP + 9)
    return int(np.clip(left, 0, width - CROP)), int(np.clip(top, 0, height - CROP))


def train_on_crops(folder: Path, out: Path, *, minutes: float, seed: int, processes: int) -> None:
    """Train encoder and decoder on crops, mostly of faces; writes `out/vae-crops.safetensors`."""
    loop.run_replicas(_train_on_crops, (folder, out, minutes, seed), processes)


def _train_on_crops(
    rank: int, processes: int, folder: Path, out: Path, minutes: float, seed: int
) -> None:
    torch.manual_seed(seed)  # same initial weights in all processes; the data differ by rank
    vae = FrameVae()
    pictures = {size: np.load(pictures_path(folder, size), mmap_mode="r") for size in SIZES}
    rng = np.random.default_rng((seed, rank))
    torch.manual_seed(seed + 1 + rank)

    def loss_of_next() -> tuple[Tensor, dict[str, float]]:
        return joint_loss(vae, _crops(pictures, rng, CROPS_PER_STEP))

    _Run(vae, out / "vae-crops", minutes, CROPS_RATE, rank, processes).go(loss_of_next, folder)


def train_on_pictures(
    folder: Path, out: Path, *, minutes: float, seed: int, processes: int
) -> None:
    """Train encoder and decoder further, on whole pictures; writes `out/vae.safetensors`.

    The attention block and everything far from faces need whole pictures. Crops come first
    because their steps are cheap.
    """
    loop.run_replicas(_train_on_pictures, (folder, out, minutes, seed), processes)


def _train_on_pictures(
    rank: int, processes: int, folder: Path, out: Path, minutes: float, seed: int
) -> None:
    vae = FrameVae()
    vae.load_state_dict(loop.load_average(out / "vae-crops.safetensors"))
    pictures = {size: np.load(pictures_path(folder, size), mmap_mode="r") for size in SIZES}
    rng = np.random.default_rng((seed, 2, rank))
    torch.manual_seed(seed + 3 + rank)

    def loss_of_next() -> tuple[Tensor, dict[str, float]]:
        size = _pick_size(rng)
        chosen = rng.choice(len(pictures[size]) - HELD_OUT, PICTURES_PER_STEP, replace=False)
        return joint_loss(vae, pixels(pictures[size][chosen]))

    _Run(vae, out / "vae", minutes, PICTURES_RATE, rank, processes).go(loss_of_next, folder)


def joint_loss(vae: FrameVae, x: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Reconstruction loss of sampled latents plus weighted KL divergence; also both as numbers."""
    with torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = vae.encode(x)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        loss = reconstruction_loss(vae.decode(z), x)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return loss + KL_WEIGHT * kl, {"reconstruction": loss.item(), "kl": kl.item()}


def _pick_size(rng: np.random.Generator) -> Size:
    return SIZES[int(rng.choice(len(SIZES), p=SHARES))]


def encode_pictures(folder: Path, out: Path, *, processes: int) -> None:
    """Write the raw latents of all pictures; the encoder must not change afterwards."""
    for size in SIZES:
        width, height = size
        shape = (len(load_avatars(folder, size)), LATENT_CHANNELS, height // 8, width // 8)
        np.lib.format.open_memmap(latents_path(folder, size), "w+", np.float32, shape)
    loop.run_replicas(_encode_part, (folder, out), processes)


def _encode_part(rank: int, processes: int, folder: Path, out: Path) -> None:
    vae = FrameVae()
    vae.load_state_dict(loop.load_average(out / "vae.safetensors"))
    for size in SIZES:
        pictures = np.load(pictures_path(folder, size), mmap_mode="r")
        latents = np.load(latents_path(folder, size), mmap_mode="r+")
        for start in range(rank * 32, len(pictures), processes * 32):
            x = pixels(pictures[start : start + 32])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                latents[start : start + 32] = vae.encode(x)[0].numpy()


def tune_decoder(folder: Path, out: Path, *, minutes: float, seed: int, processes: int) -> None:
    """Train only the decoder further, on whole pictures from noisy and from redrawn latents.

    The encoder does not change, so the transformer's latents stay valid. Writes
    `out/decoder.safetensors`.
    """
    loop.run_replicas(_tune_decoder, (folder, out, minutes, seed), processes)


def _tune_decoder(
    rank: int, processes: int, folder: Path, out: Path, minutes: float, seed: int
) -> None:
    torch.manual_seed(seed + 1 + rank)
    vae = FrameVae()
    vae.load_state_dict(loop.load_average(out / "vae.safetensors"))
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    pictures = {size: np.load(pictures_path(folder, size), mmap_mode="r") for size in SIZES}
    latents = {size: np.load(latents_path(folder, size), mmap_mode="r") for size in SIZES}
    redrawn = {size: np.load(redrawn_path(folder, size), mmap_mode="r") for size in SIZES}
    std = torch.from_numpy(latents[SIZES[0]][:].std((0, 2, 3)))[:, None, None]
    rng = np.random.default_rng((seed, 1, rank))

    def loss_of_next() -> tuple[Tensor, dict[str, float]]:
        size = _pick_size(rng)
        source = redrawn[size] if rng.random() < REDRAWN_WEIGHT else latents[size][:-HELD_OUT]
        chosen = rng.choice(len(source), 4, replace=False)
        x, z = pixels(pictures[size][chosen]), torch.from_numpy(source[chosen])
        if source is not redrawn[size]:
            z = z + LATENT_NOISE * torch.rand(4, 1, 1, 1) * std * torch.randn_like(z)
        with torch.autocast("cpu", torch.bfloat16):
            loss = reconstruction_loss(vae.decode(z), x)
        return loss, {"reconstruction": loss.item(), "kl": 0.0}

    _Run(vae, out / "decoder", minutes, DECODER_RATE, rank, processes).go(loss_of_next, folder)


class _Run:
    """Optimiser, clock, average and log of one stage."""

    def __init__(
        self, vae: FrameVae, stem: Path, minutes: float, rate: float, rank: int, processes: int
    ):
        self.vae, self.stem, self.rank = vae, stem, rank
        trained = [p for p in vae.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [{"params": trained, "peak": rate}], lr=rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.average = loop.Average(vae)
        self.gradients = loop.SharedGradients(trained, processes)
        self.step, facts = 0, {"seconds": 0.0, "cpu_seconds": 0.0}
        if self._state_path.exists():
            facts = loop.load_state(self._state_path, vae, self.average, self.optimizer)
            self.step = int(facts["step"])
        self.clock = loop.Clock(minutes * 60, facts["seconds"], facts["cpu_seconds"])

    @property
    def _state_path(self) -> Path:
        return self.stem.with_suffix(".safetensors")

    def go(self, loss_of_next: LossOfNext, folder: Path) -> None:
        """Train until the time is over; report about once a minute."""
        progress, reported, recent = self.clock.progress, self.clock.seconds, []
        while progress < 1:
            factor = loop.learning_rate_factor(self.step, progress, warm_up=100, hold=0.0)
            loop.set_learning_rate(self.optimizer, factor)
            self.gradients.clear()
            loss, parts = loss_of_next()
            loss.backward()  # type: ignore[no-untyped-call]
            progress = self.gradients.average(self.clock.progress)
            self.optimizer.step()
            self.average.update(self.vae, self.step)
            self.step += 1
            recent.append(parts)
            is_due = self.clock.seconds - reported > 60 or progress >= 1
            if self.rank == 0 and is_due:
                self._report(recent, folder)
                reported, recent = self.clock.seconds, []

    def _report(self, recent: list[dict[str, float]], folder: Path) -> None:
        facts = {"step": self.step, "seconds": self.clock.seconds}
        facts["cpu_seconds"] = self.clock.cpu_seconds
        loop.save_state(self._state_path, self.vae, self.average, self.optimizer, **facts)
        row = {k: round(v, 1) for k, v in facts.items()}
        row |= {k: round(sum(r[k] for r in recent) / len(recent), 5) for k in recent[0]}
        row |= {f"psnr_{k}": round(v, 2) for k, v in psnr(self.average.state, folder).items()}
        loop.write_row(self.stem.with_suffix(".csv"), row)
        log.info("%s", row)


def psnr(state: dict[str, Tensor], folder: Path) -> dict[str, float]:
    """Mean PSNR in dB of held-out pictures after encoding and decoding: `sharp` ones and `all`."""
    vae = FrameVae()
    vae.load_state_dict(state)
    values, is_sharp = [], []
    for size in SIZES[:1] + SIZES[-1:]:
        held_out = np.load(pictures_path(folder, size), mmap_mode="r")[-HELD_OUT:]
        is_sharp += [a.quality != "low quality" for a in load_avatars(folder, size)[-HELD_OUT:]]
        x = pixels(held_out)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(vae.encode(x)[0]).clamp(-1, 1)
        values += (-10 * ((x - y) / 2).square().mean((1, 2, 3)).log10()).tolist()
    sharp = [v for v, s in zip(values, is_sharp, strict=True) if s]
    return {"sharp": sum(sharp) / len(sharp), "all": sum(values) / len(values)}

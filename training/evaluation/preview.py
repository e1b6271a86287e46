"""Draws contact sheets of an unfinished run; `evaluate` measures finished ones."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.pictures.avatars import Avatar, sample_avatar
from training.pictures.captions import prompt
from training.pictures.dataset import SIZES, Size
from training.train import anima, batches, dit, frame_vae, loop

SEED = 0xA11  # used by no training stage


def preview_sheet(data: Path, out: Path, size: Size, *, count: int, columns: int) -> Image.Image:
    """Pictures for unseen prompts, by Euler's method with 20 steps and CFG 4."""
    rng = np.random.default_rng(SEED)
    avatars: list[Avatar] = [sample_avatar(rng) for _ in range(count)]
    decoder = out / "decoder.safetensors"
    frames = frame_vae.FrameVae()
    frames.load_state_dict(
        loop.load_average(decoder if decoder.exists() else out / "vae.safetensors")
    )
    mean, std = batches.latent_statistics(data)
    latents = dit.sample(anima.load(out), [prompt(a) for a in avatars], size, out)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pixels = frames.decode(latents * std + mean).clamp(-1, 1)
    width, height = size
    sheet = Image.new("RGB", (columns * width, -(-count // columns) * height))
    rows = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for i, picture in enumerate(rows):
        sheet.paste(Image.fromarray(picture), (i % columns * width, i // columns * height))
    return sheet


def main() -> None:
    """Write `preview-WxH.png` for every size into the run's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for size in SIZES:
        sheet = preview_sheet(options.data, options.out, size, count=options.count, columns=8)
        sheet.save(options.out / f"preview-{size[0]}x{size[1]}.png")


if __name__ == "__main__":
    main()

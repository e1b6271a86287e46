"""Stores the training pictures of a run and their latents as arrays on disk."""

import json
import logging
import multiprocessing
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.pictures.avatars import Avatar, sample_avatar
from training.pictures.drawing import draw

log = logging.getLogger(__name__)

SIZES = ((128, 128), (112, 144), (144, 112), (192, 192))
SHARES = (0.50, 0.15, 0.15, 0.20)
HELD_OUT = 32  # the last pictures of every size are used for PSNR only

Size = tuple[int, int]


def pictures_path(folder: Path, size: Size) -> Path:
    """File of the uint8 pictures (n, height, width, 3) of one size."""
    return folder / f"pictures-{size[0]}x{size[1]}.npy"


def latents_path(folder: Path, size: Size) -> Path:
    """File of the raw float32 latents (n, 16, height / 8, width / 8) of one size."""
    return folder / f"latents-{size[0]}x{size[1]}.npy"


def redrawn_path(folder: Path, size: Size) -> Path:
    """File of the first pictures' latents of one size, as redrawn by the transformer."""
    return folder / f"redrawn-{size[0]}x{size[1]}.npy"


def avatars_path(folder: Path, size: Size) -> Path:
    """File of the avatars of one size: a JSON object per line, in the order of the pictures."""
    return folder / f"avatars-{size[0]}x{size[1]}.jsonl"


def load_avatars(folder: Path, size: Size) -> list[Avatar]:
    """The avatars that `render` drew."""
    lines = avatars_path(folder, size).read_text().splitlines()
    return [Avatar(**json.loads(line)) for line in lines]


def draw_pictures(folder: Path, count: int, *, seed: int, processes: int) -> None:
    """Draw about `count` pictures over all sizes; every picture has its own seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (size, share) in enumerate(zip(SIZES, SHARES, strict=True)):
        width, height = size
        number = round(count * share)
        shape = (number, height, width, 3)
        np.lib.format.open_memmap(pictures_path(folder, size), "w+", np.uint8, shape)
        parts = [
            (folder, size, range(part, number, processes), (seed, index))
            for part in range(processes)
        ]
        with multiprocessing.Pool(processes) as pool:
            avatars = dict(pair for pairs in pool.starmap(_draw_part, parts) for pair in pairs)
        lines = [json.dumps(asdict(avatars[i])) for i in range(number)]
        avatars_path(folder, size).write_text("\n".join(lines) + "\n")
        log.info("drew %d pictures of %dx%d", number, width, height)


def _draw_part(
    folder: Path, size: Size, indices: range, seed: tuple[int, int]
) -> list[tuple[int, Avatar]]:
    pictures: NDArray[np.uint8] = np.load(pictures_path(folder, size), mmap_mode="r+")
    avatars = []
    for i in indices:
        rng = np.random.default_rng((*seed, i))
        avatar = sample_avatar(rng)
        pictures[i] = np.asarray(draw(avatar, *size, rng))
        avatars.append((i, avatar))
    return avatars

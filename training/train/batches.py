"""Random batches of captions and latents for training the transformer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from training.pictures.avatars import Avatar
from training.pictures.captions import BAD_WORDS, OTHER_BAD_WORDS, caption
from training.pictures.dataset import (
    HELD_OUT,
    SIZES,
    latents_path,
    load_avatars,
)
from training.pictures.tokenizers import T5_PAD, T5_SPACE, load_tiny_tokenizers
from training.train.anima import CONTEXT_ROWS

QWEN_ROWS = 96  # fits all captions, so that one shape is compiled
CAPTIONS_PER_STEP = 16
BAD_WORDS_SHARE = 0.18  # for bad pictures; a third of it for all others
SPLIT_SHARE = 0.1  # share of captions with lone spaces, as in weighted prompts
SIZE_SHARES = (0.50, 0.15, 0.15, 0.20)


class Batches:
    """Random pictures of one size: new captions and normalised latents."""

    def __init__(self, folder: Path, out: Path, rng: np.random.Generator):
        self._rng = rng
        self._qwen, self._t5 = load_tiny_tokenizers(out / "tokenizers")
        self._avatars = {size: load_avatars(folder, size) for size in SIZES}
        mean, std = latent_statistics(folder)
        self._latents = {
            size: (torch.from_numpy(np.load(latents_path(folder, size))) - mean) / std
            for size in SIZES
        }

    def next(self) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Latents (B, 16, 1, h, w) and the arguments of `Anima.context`."""
        size = SIZES[int(self._rng.choice(len(SIZES), p=SIZE_SHARES))]
        count = len(self._avatars[size]) - HELD_OUT
        chosen = self._rng.choice(count, CAPTIONS_PER_STEP, replace=False)
        texts = [_caption(self._avatars[size][i], self._rng) for i in chosen]
        qwen, t5, lengths = encode(texts, self._qwen, self._t5)
        for row in np.flatnonzero(self._rng.random(len(t5)) < SPLIT_SHARE):
            t5[row] = _split_segments(t5[row], self._rng)
        return self._latents[size][chosen][:, :, None], (qwen, t5, lengths)


def _caption(avatar: Avatar, rng: np.random.Generator) -> str:
    """A caption, or sometimes only bad words, as in a negative prompt.

    Pictures of every quality get them: if only bad pictures did, guidance would amplify their
    flaws and colours would burn. Bad pictures get them more often, so the words keep a meaning.
    """
    is_bad = avatar.quality == "low quality"
    if rng.random() >= (BAD_WORDS_SHARE if is_bad else BAD_WORDS_SHARE / 3):
        return caption(avatar, rng)
    pool = BAD_WORDS if rng.random() < 0.5 else (*BAD_WORDS, *OTHER_BAD_WORDS)
    words = rng.permutation(pool)[: int(rng.integers(1, len(pool) + 1))]
    return ", ".join(words)


def _split_segments(ids: Tensor, rng: np.random.Generator) -> Tensor:
    """Insert T5's lone space before some ids, as weighted prompts have before segments."""
    free = int((ids == T5_PAD).sum())
    used = len(ids) - free
    if used == 1:  # the empty prompt stays unchanged
        return ids
    starts = rng.choice(used, min(free, used, int(rng.integers(1, 5))), replace=False)
    row = np.insert(ids.numpy(), np.sort(starts), T5_SPACE)[: len(ids)]
    return torch.from_numpy(row)


def latent_statistics(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the raw latents by channel, (16, 1, 1) each."""
    latents: NDArray[np.float32] = np.load(latents_path(folder, SIZES[0]))
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return torch.from_numpy(mean)[:, None, None], torch.from_numpy(std)[:, None, None]


def encode(texts: Sequence[str], qwen: Tokenizer, t5: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Padded Qwen ids, padded T5 ids and the Qwen lengths of some prompts."""
    qwen_ids = [encoding.ids for encoding in qwen.encode_batch(list(texts))]
    t5_ids = [encoding.ids for encoding in t5.encode_batch(list(texts))]
    lengths = torch.tensor([len(ids) for ids in qwen_ids])
    return _padded(qwen_ids, 0, QWEN_ROWS), _padded(t5_ids, T5_PAD, CONTEXT_ROWS), lengths


def _padded(rows: Sequence[Sequence[int]], value: int, width: int) -> Tensor:
    width = max(width, *(len(row) for row in rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])

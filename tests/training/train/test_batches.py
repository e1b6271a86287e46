"""Captions for training: lone spaces between segments, and bad words alone."""

import numpy as np
import torch

from training.pictures.avatars import sample_avatar
from training.pictures.captions import BAD_WORDS, OTHER_BAD_WORDS
from training.pictures.tokenizers import T5_PAD, T5_SPACE
from training.train import batches


def test_split_segments_adds_lone_spaces_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(0)
    for used in (1, 2, 10, 79, 80):
        ids = torch.zeros(80, dtype=torch.long)
        ids[:used] = torch.arange(used) + 10
        row = batches._split_segments(ids, rng)
        kept = row[(row != T5_SPACE) & (row != T5_PAD)]
        assert kept.tolist() == list(range(10, 10 + used))
        assert len(row) == 80


def test_bad_words_alone_fall_on_every_kind_of_picture() -> None:
    rng = np.random.default_rng(0)
    shown = [sample_avatar(rng) for _ in range(3000)]
    known = {*BAD_WORDS, *OTHER_BAD_WORDS}
    is_alone = [set(batches._caption(a, rng).split(", ")) <= known for a in shown]
    alone = [a.quality for a, is_it in zip(shown, is_alone, strict=True) if is_it]
    assert 0.04 < len(alone) / len(shown) < 0.11
    assert 0.1 < alone.count("low quality") / len(alone) < 0.45

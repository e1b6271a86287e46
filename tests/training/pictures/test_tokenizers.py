"""The two small tokenizers: whole words, any text, the ids that the service relies on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from training.pictures.avatars import sample_avatar
from training.pictures.captions import WORDS, caption
from training.pictures.tokenizers import (
    T5_END,
    T5_PAD,
    T5_SPACE,
    T5_UNKNOWN,
    load_tiny_tokenizers,
    qwen_tokenizer,
    save_tokenizers,
    t5_tokenizer,
)
from training.train.anima import CONTEXT_ROWS
from training.train.batches import QWEN_ROWS

T5 = t5_tokenizer()


def captions(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [caption(sample_avatar(rng), rng) for _ in range(count)]


@pytest.fixture(scope="module")
def qwen() -> Tokenizer:
    return qwen_tokenizer(captions(1500, seed=3))


def test_every_caption_word_is_one_t5_token() -> None:
    for word in WORDS:
        assert len(T5.encode(word).ids) == 2, word


def test_t5_special_ids_are_those_of_the_published_t5() -> None:
    assert [T5.token_to_id(t) for t in ("<pad>", "</s>", "<unk>", "▁")] == [
        T5_PAD,
        T5_END,
        T5_UNKNOWN,
        T5_SPACE,
    ]


def test_empty_prompt_is_only_the_end_for_t5_and_nothing_for_qwen(qwen: Tokenizer) -> None:
    assert T5.encode("").ids == [T5_END]
    assert qwen.encode("").ids == []


def test_t5_reads_capitals_and_runs_of_space_as_the_plain_words() -> None:
    assert T5.encode("Blue  Hair,\n 1GIRL").ids == T5.encode("blue hair, 1girl").ids


def test_captions_hold_no_unknown_piece_and_fit_the_context(qwen: Tokenizer) -> None:
    for text in captions(400, seed=4):
        ids = T5.encode(text).ids
        assert T5_UNKNOWN not in ids
        assert len(ids) <= CONTEXT_ROWS
        assert len(qwen.encode(text).ids) <= QWEN_ROWS


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=60))
def test_any_text_has_ids(text: str, qwen: Tokenizer) -> None:
    for tokenizer in (qwen, T5):
        ids = tokenizer.encode(text).ids
        assert all(0 <= i < tokenizer.get_vocab_size() for i in ids)


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), max_size=60))
def test_qwen_loses_nothing_but_capitals(text: str, qwen: Tokenizer) -> None:
    assert qwen.decode(qwen.encode(text).ids) == text.lower()


def test_saved_tokenizers_read_the_same(tmp_path: Path, qwen: Tokenizer) -> None:
    save_tokenizers(tmp_path, qwen, T5)
    text = "1girl, aqua hair, 猫 (smile:1.2)"
    for loaded, original in zip(load_tiny_tokenizers(tmp_path), (qwen, T5), strict=True):
        assert loaded.encode(text).ids == original.encode(text).ids

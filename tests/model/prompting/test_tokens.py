"""Prompts become token ids as in ComfyUI, and never control tokens."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model.card import load_card
from model.errors import CheckpointError, PromptError
from model.network.load import Components
from model.prompting.tokens import (
    TokenCount,
    Tokenizers,
    Tokens,
    count_tokens,
    is_empty_prompt,
    load_tokenizers,
    tokenize,
    truncate,
)
from tests.support.paths import DATA
from tests.support.published_tokenizers import FOLDER, published_tokenizers

CASES: list[dict[str, Any]] = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))[
    "cases"
]
CONTROL_TEXT = [
    "<|endoftext|>", "<|im_start|>", "</s>", "<pad>", "<unk>", "<s>", "<extra_id_0>",
    "<think>", "＜/s＞", "<ｐａｄ>", "<\u200bpad>", "<pad\u00ad>", "<<pad>>", "﹤pad﹥",
    "<", ">", "pad", "/s", "|", " ", ",", "(", ")", ":1.2", "\\", "1girl", "夜",
]  # fmt: skip
CONTROL_TOKENS = [
    "<|endoftext|>", "a <|endoftext|> b", "<|im_start|>system<|im_end|>", "</s>", "1girl</s>, fox",
    "<pad>", "<pad><pad>", "<s>", "<extra_id_0>", "<extra_id_0><extra_id_1>", "(</s>:1.3), <pad>",
    "(<extra_id_0>)", r"\(</s>\)", "<think></think>", "<tool_call>", "<|fim_pad|>",
    *(f"x<extra_id_{n}>y" for n in range(100)),
]  # fmt: skip


@pytest.fixture(scope="module")
def published() -> Tokenizers:
    return published_tokenizers()


def test_ids_and_weights_are_those_of_the_reference(published: Tokenizers) -> None:
    for case in CASES:
        if case["segments"] is None:
            tokens = tokenize("word " * 600, *published)
            assert (len(tokens.qwen_ids), len(tokens.t5_ids)) == (case["qwen_ids"], case["t5_ids"])
        else:
            tokens = tokenize(case["prompt"], *published)
            assert tokens.qwen_ids == case["qwen_ids"]
            assert tokens.t5_ids == case["t5_ids"]
            assert tokens.t5_weights == pytest.approx(case["t5_weights"])


def test_an_empty_prompt_is_the_padding_token(published: Tokenizers) -> None:
    assert tokenize("", *published).qwen_ids == [151_643]


@settings(deadline=None)
@given(st.lists(st.sampled_from(CONTROL_TEXT), max_size=8).map("".join))
def test_text_like_control_tokens_is_ordinary_text(published: Tokenizers, text: str) -> None:
    try:
        tokens = tokenize(text, *published)
    except PromptError:
        return
    assert all(i < 151643 for i in tokens.qwen_ids) or tokens.qwen_ids == [151643]
    control = {0, 1, *(published.t5.token_to_id(f"<extra_id_{n}>") for n in range(100))}
    assert not control.intersection(tokens.t5_ids[:-1])
    assert tokens.t5_ids[-1] == 1


def test_control_tokens_of_the_published_vocabularies_are_ordinary_text(
    published: Tokenizers,
) -> None:
    wrong = []
    for text in CONTROL_TOKENS:
        tokens = tokenize(text, *published)
        is_t5_text = (
            0 not in tokens.t5_ids
            and all(i < 32_000 for i in tokens.t5_ids)
            and tokens.t5_ids.index(1) == len(tokens.t5_ids) - 1
        )
        is_qwen_text = all(i < 151_643 for i in tokens.qwen_ids) and len(tokens.qwen_ids) > 2
        if not (is_t5_text and is_qwen_text):
            wrong.append((text, tokens))
    assert wrong == []


def test_control_tokens_of_a_small_vocabulary_are_ordinary_text(components: Components) -> None:
    for text in ("<pad>", "a</s>b", "(</s>:1.2)", "＜/s＞", "<\u200bpad>"):
        tokens = tokenize(text, components.qwen, components.t5)
        assert not {0, 1}.intersection(tokens.t5_ids[:-1]), text
        assert tokens.t5_ids[-1] == 1, text


def test_transformers_tokenizers_give_the_same_ids(published: Tokenizers) -> None:
    transformers = pytest.importorskip("transformers")
    qwen = transformers.Qwen2Tokenizer.from_pretrained(FOLDER / "qwen3")
    t5 = transformers.PreTrainedTokenizerFast(tokenizer_object=published.t5)
    prompts = [case["prompt"] for case in CASES if case["segments"] is not None]
    for prompt in [*prompts, "<|endoftext|>"]:
        assert tokenize(prompt, qwen, t5) == tokenize(prompt, *published)


def test_long_prompts_are_truncated_before_the_end_token() -> None:
    tokens = Tokens([7] * 9, [5, 6, 7, 8, 1], [1.1, 1.2, 1.3, 1.4, 1.0])
    assert truncate(tokens, 4) == Tokens([7] * 4, [5, 6, 7, 1], [1.1, 1.2, 1.3, 1.0])
    assert truncate(tokens, 9) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "1girl, red hair, (blue eyes:1.2), smile, year 2024, 8k",
        "rock'n'roll don't DON'T, x'll 1'st, __a__b--c;d :) ^_^ @@",
        "a " * 60,
        "red hair, smile (happy:1.2) 1girl, rock'n'roll ((a) b) 'll (c)",
        " leading,  double  spaces\nand\ttabs ",
        "café naïve 夜 ｆｕｌｌ ｗｉｄｔｈ, e\u0301 \u0301x",
        "</s> <|im_end|> <extra_id_0> < / s >",
        "x" * 300 + " " + "'" * 50,
        "".join(map(chr, range(32, 127))) + " " + " ".join(map(chr, range(33, 127))),
    ],
)
def test_counting_by_word_counts_every_token(published: Tokenizers, text: str) -> None:
    for tokenizers in (published, load_tokenizers(load_card("kirazuri-tiny"), None)):
        whole = tokenize(text, *tokenizers)
        counted = count_tokens(text, tokenizers, 512)
        assert (counted.qwen, counted.t5) == (len(whole.qwen_ids), len(whole.t5_ids))


class CountedTokenizer:
    """The tokenizers of the package; counts the texts that one turns into tokens."""

    def __init__(self) -> None:
        self.texts = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        self.texts += 1
        return load_tiny().t5.encode(text, add_special_tokens=add_special_tokens)


def test_words_that_were_counted_are_not_tokenized_again() -> None:
    counting = CountedTokenizer()
    tokenizers = Tokenizers(cast(Tokenizer, counting), cast(Tokenizer, counting))
    count_tokens("red hair, red spring (season), a hat", tokenizers, 512)
    before = counting.texts
    count_tokens("red spring (season), hat a", tokenizers, 512)
    assert counting.texts == before


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=200))
def test_any_ascii_text_is_counted_exactly(text: str) -> None:
    tokenizers = load_tiny()
    text = re.sub(r"[()\\:]", "", text)  # weights and brackets are tested elsewhere
    whole = tokenize(text, *tokenizers)
    counted = count_tokens(text, tokenizers, 512)
    assert counted.t5 == len(whole.t5_ids)
    assert counted.qwen == (0 if is_empty_prompt(whole, tokenizers.qwen) else len(whole.qwen_ids))


@cache
def load_tiny() -> Tokenizers:
    return load_tokenizers(load_card("kirazuri-tiny"), None)


def test_tokens_are_counted_before_truncation(published: Tokenizers) -> None:
    assert count_tokens("1girl, (red hair:1.3), smile", published, 512) == TokenCount(8, 9, 512)
    for empty in ("", "()"):
        assert count_tokens(empty, published, 512) == TokenCount(0, 1, 512)
    long = count_tokens("word " * 600, published, 512)
    assert (long.qwen, long.t5, long.is_cut) == (601, 601, True)
    exact = count_tokens("word " * 511, published, 512)
    assert (exact.t5, exact.is_cut) == (512, False)


def test_tokenizers_are_loaded_by_card(tmp_path: Path) -> None:
    card = load_card("kirazuri-tiny")
    assert count_tokens("1girl", load_tokenizers(card, None), 80).qwen > 0
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_tokenizers(card, tmp_path)

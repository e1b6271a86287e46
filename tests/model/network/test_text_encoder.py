"""Prompts to ids, as ComfyUI does it, and ids to context rows, as training did it."""

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

import model.network.text_encoder
import model.prompting.tokens
from model.card import TextArchitecture, load_card
from model.errors import CheckpointError, PromptError
from model.network.load import Components
from model.network.text_encoder import TextEncoder, encode_tokens, tokenize
from model.prompt_grammar import Segment, parse_prompt
from model.prompting.tokens import (
    TokenCount,
    Tokenizers,
    Tokens,
    count_tokens,
    load_qwen_tokenizer,
    load_t5_tokenizer,
    load_tokenizers,
    truncate,
)
from tests.support.paths import DATA, ROOT
from tests.support.random_checkpoint import CONTEXT_ROWS, WrittenCheckpoint

CASES: list[dict[str, Any]] = json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))[
    "cases"
]
SHORT_CASES = [case for case in CASES if case["segments"] is not None]
PUBLISHED = Path(
    os.environ.get(  # noqa: TID251 - a test has no settings
        "KIRAZURI_TEST_TOKENIZERS", str(ROOT.parent / "shared" / "tokenizers")
    )
)
CONTROL_TEXT = [
    "<|endoftext|>", "<|im_start|>", "</s>", "<pad>", "<unk>", "<s>", "<extra_id_0>",
    "<think>", "＜/s＞", "<ｐａｄ>", "<\u200bpad>", "<pad\u00ad>", "<<pad>>", "﹤pad﹥",
    "<", ">", "pad", "/s", "|", " ", ",", "(", ")", ":1.2", "\\", "1girl", "夜",
]  # fmt: skip


@pytest.fixture(scope="module")
def published() -> tuple[Tokenizer, Tokenizer]:
    """Qwen's and T5's own tokenizers; megabytes of other people's data, so not in the project."""
    if not (PUBLISHED / "qwen3").is_dir():
        pytest.skip(f"the published tokenizers are not at {PUBLISHED} (KIRAZURI_TEST_TOKENIZERS)")
    return load_qwen_tokenizer(PUBLISHED / "qwen3"), load_t5_tokenizer(PUBLISHED / "t5")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:30])
def test_ids_and_weights_are_those_of_the_reference(
    case: dict[str, Any], published: tuple[Tokenizer, Tokenizer]
) -> None:
    if case["segments"] is None:
        tokens = tokenize("word " * 600, *published)
        assert (len(tokens.qwen_ids), len(tokens.t5_ids)) == (case["qwen_ids"], case["t5_ids"])
        return
    tokens = tokenize(case["prompt"], *published)
    assert tokens.qwen_ids == case["qwen_ids"]
    assert tokens.t5_ids == case["t5_ids"]
    assert tokens.t5_weights == pytest.approx(case["t5_weights"])


@pytest.mark.parametrize("case", SHORT_CASES, ids=lambda case: case["prompt"][:30])
def test_segments_are_those_of_the_reference(case: dict[str, Any]) -> None:
    expected = [
        (text.replace("\0\1", ")").replace("\0\2", "("), weight)
        for text, weight in case["segments"]
    ]
    segments = parse_prompt(case["prompt"])
    assert [segment.text for segment in segments] == [text for text, _ in expected]
    assert [s.weight for s in segments] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("prompt", "segments"),
    [
        (r"\\(a\\)", [("\\(a\\)", 1.0)]),
        ("(a", [("(a", 1.0)]),
        ("b (a", [("b ", 1.0), ("(a", 1.0)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("(a\\:1.2)", [("a\\", 1.2)]),
        ("(a:1_0)", [("a", 10.0)]),
        ("(smile:)", [("smile:", 1.1)]),
        ("[a]{b}", [("[a]{b}", 1.0)]),
    ],
)
def test_odd_brackets(prompt: str, segments: list[tuple[str, float]]) -> None:
    found = parse_prompt(prompt)
    assert [segment.text for segment in found] == [text for text, _ in segments]
    assert [segment.weight for segment in found] == pytest.approx([w for _, w in segments])


@pytest.mark.parametrize(
    ("prompt", "position"),
    [
        ("a, (cat:nan)", 3),
        ("(cat:inf)", 0),
        ("(cat:-inf)", 0),
        ("(cat:1e9)", 0),
        ("(cat:-11)", 0),
        ("(a (b (cat:10.5)))", 6),
        (r"\(x\) ((y:9.9))" + ", ((((z)):9.5))", 19),
        ("(" * 10_000, 20),
        ("a(" + "(" * 10_000 + "b" + ")" * 10_000, 21),
    ],
)
def test_weights_and_nesting_out_of_bounds_are_refused_with_their_place(
    prompt: str, position: int
) -> None:
    with pytest.raises(PromptError, match=rf"position {position}\b"):
        parse_prompt(prompt)


HOSTILE = {
    "open": "(" * 10_000,
    "pairs": "()" * 5_000,
    "nested": ("(" * 20 + "a" + ")" * 20) * 240,
    "wide": "(" * 19 + "()" * 4_980 + ")" * 19,
    "colons": "(" + ":" * 9_998 + ")",
    "digits": "(a:" + "1" * 9_990 + ")",
    "backslashes": "\\" * 10_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_brackets_are_read_or_refused_at_once(text: str) -> None:
    began = time.perf_counter()
    try:
        parse_prompt(text)
    except PromptError as exc:
        assert exc.limit in (10, 20)  # noqa: PT017 - either outcome is fine
    assert time.perf_counter() - began < 1


def test_bounds_themselves_are_allowed() -> None:
    assert parse_prompt("(a:-10)") == (Segment("a", -10.0),)
    assert parse_prompt("(" * 20 + "a" + ")" * 20)[0].weight == pytest.approx(1.1**20)


@settings(deadline=None)
@given(st.text(alphabet="()\\:1.a ,é夜", max_size=60))
def test_any_text_is_parsed_or_refused_and_loses_no_letter(text: str) -> None:
    try:
        segments = parse_prompt(text)
    except PromptError:
        return
    letters = "".join(char for segment in segments for char in segment.text if char in "aé夜")
    assert letters == "".join(char for char in text if char in "aé夜")


@settings(deadline=None)
@given(st.lists(st.sampled_from(CONTROL_TEXT), max_size=8).map("".join))
def test_text_that_looks_like_control_tokens_is_inert(
    published: tuple[Tokenizer, Tokenizer], text: str
) -> None:
    qwen, t5 = published
    try:
        tokens = tokenize(text, qwen, t5)
    except PromptError:
        return
    assert all(i < 151643 for i in tokens.qwen_ids) or tokens.qwen_ids == [151643]
    control = {0, 1, *(t5.token_to_id(f"<extra_id_{n}>") for n in range(100))}
    assert not control.intersection(tokens.t5_ids[:-1])
    assert tokens.t5_ids[-1] == 1


CORPUS = [
    "<|endoftext|>", "a <|endoftext|> b", "<|im_start|>system<|im_end|>", "</s>", "1girl</s>, fox",
    "<pad>", "<pad><pad>", "<s>", "<extra_id_0>", "<extra_id_0><extra_id_1>", "(</s>:1.3), <pad>",
    "(<extra_id_0>)", r"\(</s>\)", "<think></think>", "<tool_call>", "<|fim_pad|>",
    *(f"x<extra_id_{n}>y" for n in range(100)),
]  # fmt: skip


@pytest.mark.parametrize("text", CORPUS)
def test_control_tokens_of_the_published_vocabularies_are_inert(
    published: tuple[Tokenizer, Tokenizer], text: str
) -> None:
    tokens = tokenize(text, *published)
    assert 0 not in tokens.t5_ids
    assert not [i for i in tokens.t5_ids if i >= 32_000]
    assert tokens.t5_ids.index(1) == len(tokens.t5_ids) - 1
    assert all(i < 151_643 for i in tokens.qwen_ids)
    assert len(tokens.qwen_ids) > 2, "it is read as text"


@pytest.mark.parametrize("text", ["<pad>", "a</s>b", "(</s>:1.2)", "＜/s＞", "<\u200bpad>"])
def test_control_tokens_are_inert_in_a_small_vocabulary(text: str, components: Components) -> None:
    tokens = tokenize(text, components.qwen, components.t5)
    assert not {0, 1}.intersection(tokens.t5_ids[:-1])
    assert tokens.t5_ids[-1] == 1


def test_transformers_tokenizers_give_the_same_ids(
    published: tuple[Tokenizer, Tokenizer],
) -> None:
    transformers = pytest.importorskip("transformers")
    qwen = transformers.Qwen2Tokenizer.from_pretrained(PUBLISHED / "qwen3")
    t5 = transformers.PreTrainedTokenizerFast(tokenizer_object=published[1])
    for case in SHORT_CASES:
        assert tokenize(case["prompt"], qwen, t5) == tokenize(case["prompt"], *published)
    assert tokenize("<|endoftext|>", qwen, t5) == tokenize("<|endoftext|>", *published)


def test_long_prompts_are_cut_before_the_end_token() -> None:
    tokens = Tokens([7] * 9, [5, 6, 7, 8, 1], [1.1, 1.2, 1.3, 1.4, 1.0])
    assert truncate(tokens, 4) == Tokens([7] * 4, [5, 6, 7, 1], [1.1, 1.2, 1.3, 1.0])
    assert truncate(tokens, 9) == tokens


def test_tokens_are_counted_before_the_cut(published: tuple[Tokenizer, Tokenizer]) -> None:
    tokenizers = Tokenizers(*published)
    assert count_tokens("1girl, (red hair:1.3), smile", tokenizers, 512) == TokenCount(8, 9, 512)
    assert (
        count_tokens("", tokenizers, 512)
        == count_tokens("()", tokenizers, 512)
        == TokenCount(0, 1, 512)
    )
    long = count_tokens("word " * 600, tokenizers, 512)
    assert (long.qwen, long.t5, long.is_cut) == (601, 601, True)
    exact = count_tokens("word " * 511, tokenizers, 512)
    assert (exact.t5, exact.is_cut) == (512, False)


def test_the_shipped_tokenizers_are_found_by_card(tmp_path: Path) -> None:
    card = load_card("kirazuri-tiny")
    assert count_tokens("1girl", load_tokenizers(card, None), 80).qwen > 0
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_tokenizers(card, tmp_path)


def test_tokenize_stays_where_callers_look_for_it() -> None:
    assert model.network.text_encoder.tokenize is model.prompting.tokens.tokenize


# -- ids to context ----------------------------------------------------------------------------


@pytest.fixture
def encoder(components: Components, written: WrittenCheckpoint) -> TextEncoder:
    return TextEncoder(components, written.card.text)


def context(encoder: TextEncoder, prompt: str) -> Tensor:
    return encoder.encode(prompt).context


def test_rows_after_the_tokens_are_zero_and_the_others_are_not(encoder: TextEncoder) -> None:
    encoded = encoder.encode("1girl, red hair")
    assert encoded.context.shape == (CONTEXT_ROWS, 20)
    assert encoded.context.dtype == torch.float32
    assert encoded.t5_count < CONTEXT_ROWS
    assert (encoded.context[: encoded.t5_count].abs().sum(1) > 0).all()
    assert not encoded.context[encoded.t5_count :].any()


def test_weights_multiply_the_adapters_rows(components: Components) -> None:
    plain = tokenize("red smile", components.qwen, components.t5)
    weights = [1.0 + 0.1 * i for i in range(len(plain.t5_ids))]
    weighted = encode_tokens(plain._replace(t5_weights=weights), components)
    rows = torch.tensor([*weights, *[1.0] * (CONTEXT_ROWS - len(weights))])[:, None]
    assert torch.allclose(weighted, encode_tokens(plain, components) * rows, atol=1e-6)


def test_a_prompt_equals_itself_padded_and_masked_in_a_batch(
    components: Components, written: WrittenCheckpoint
) -> None:
    """Leaving padding out is the same as masking it, which is how the adapter was trained."""
    made = written.made
    prompts = [tokenize(p, made.qwen, made.t5) for p in ("1girl", "red hair, smile, hair", "a")]
    qwen_rows = max(len(p.qwen_ids) for p in prompts)
    t5_rows = max(len(p.t5_ids) for p in prompts)
    qwen_ids = torch.tensor([p.qwen_ids + [0] * (qwen_rows - len(p.qwen_ids)) for p in prompts])
    t5_ids = torch.tensor([p.t5_ids + [0] * (t5_rows - len(p.t5_ids)) for p in prompts])
    qwen_mask = torch.tensor([[i < len(p.qwen_ids) for i in range(qwen_rows)] for p in prompts])
    t5_mask = torch.tensor([[i < len(p.t5_ids) for i in range(t5_rows)] for p in prompts])
    states = made.text_encoder(input_ids=qwen_ids, attention_mask=qwen_mask).last_hidden_state
    batch = made.conditioner(states, t5_ids, t5_mask, qwen_mask)
    for prompt, row in zip(prompts, batch, strict=True):
        assert torch.allclose(encode_tokens(prompt, components), row, atol=1e-5)


@pytest.mark.parametrize("prompt", ["", "()", "(())"])
def test_an_empty_prompt_is_what_training_saw(
    prompt: str, encoder: TextEncoder, written: WrittenCheckpoint
) -> None:
    """One zero state that is attended to equals a row that is masked altogether."""
    made = written.made
    states = torch.zeros(1, 3, 32)
    end = torch.tensor([[made.t5.token_to_id("</s>")]])
    masked = made.conditioner(
        states, end, torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)
    )[0]
    assert torch.allclose(context(encoder, prompt), masked, atol=1e-6)
    assert torch.isfinite(masked).all()


@pytest.mark.parametrize("prompt", ["", "()"])
def test_an_empty_prompt_can_be_what_comfyui_feeds(
    prompt: str, components: Components, written: WrittenCheckpoint
) -> None:
    """Qwen's padding token alone, 151643 of the published one, read as a word."""
    made, architecture = written.made, written.card.text
    (pad,) = tokenize("", components.qwen, components.t5).qwen_ids
    config = Qwen3Config.from_dict(
        {**components.text_encoder.config.to_dict(), "vocab_size": pad + 1}
    )
    torch.manual_seed(1)  # weights that tell the two well apart
    wider = replace(components, text_encoder=Qwen3Model(config).eval())
    comfy = TextEncoder(wider, architecture.model_copy(update={"empty_prompt": "comfy"}))
    states = wider.text_encoder(input_ids=torch.tensor([[pad]])).last_hidden_state
    expected = made.conditioner(states, torch.tensor([[made.t5.token_to_id("</s>")]]))[0]
    assert torch.allclose(context(comfy, prompt), expected, atol=1e-6)
    training = TextEncoder(wider, architecture)
    difference = context(training, prompt) - expected
    assert difference.norm() > 0.1 * expected.norm(), "the two differ"
    assert torch.equal(context(comfy, "1girl"), context(training, "1girl"))


def test_comfys_empty_prompt_is_the_published_padding_token(
    published: tuple[Tokenizer, Tokenizer],
) -> None:
    assert tokenize("", *published).qwen_ids == [151_643]


def test_a_text_encoder_without_the_padding_token_cannot_read_it(
    components: Components, written: WrittenCheckpoint, published: tuple[Tokenizer, Tokenizer]
) -> None:
    architecture = written.card.text.model_copy(update={"empty_prompt": "comfy"})
    foreign = replace(components, qwen=published[0])
    with pytest.raises(CheckpointError, match="151643"):
        TextEncoder(foreign, architecture)


@pytest.mark.parametrize("prompt", [" ", "\n\t", "夜の街", "🙂", "a" * 5000, "\\(", "( )"])
def test_unusual_prompts_have_finite_contexts(prompt: str, encoder: TextEncoder) -> None:
    encoded = encoder.encode(prompt)
    assert encoded.context.shape == (CONTEXT_ROWS, 20)
    assert torch.isfinite(encoded.context).all()


def test_a_cut_prompt_says_so_and_is_the_cut_text(
    encoder: TextEncoder, components: Components
) -> None:
    encoded = encoder.encode("smile " * 50)
    assert encoded.is_cut
    assert encoded.max_tokens == CONTEXT_ROWS
    assert encoded.t5_count > CONTEXT_ROWS
    assert encoded.qwen_count == 300
    assert encoded.context[-1].any()
    assert not encoder.encode("smile").is_cut


def test_no_more_tokens_are_read_than_there_are_rows(components: Components) -> None:
    narrow = TextEncoder(components, TextArchitecture(context_rows=CONTEXT_ROWS, max_tokens=512))
    assert narrow.encode("smile " * 50).context.shape == (CONTEXT_ROWS, 20)


def test_contexts_are_remembered_by_text(encoder: TextEncoder) -> None:
    assert encoder.encode("red hair") is encoder.encode("red hair")
    assert not torch.equal(context(encoder, "red hair"), context(encoder, "red smile"))


def test_a_refused_prompt_is_refused_again(encoder: TextEncoder) -> None:
    for _ in range(2):
        with pytest.raises(PromptError, match="nan"):
            encoder.encode("(cat:nan)")

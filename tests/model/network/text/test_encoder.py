"""Contexts of prompts equal those of training."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from model.card import TextArchitecture
from model.errors import CheckpointError, PromptError
from model.network.load import Components
from model.network.text.encoder import TextEncoder, encode_tokens
from model.prompting.tokens import tokenize
from tests.support.published_tokenizers import published_tokenizers
from tests.support.random_checkpoint import CONTEXT_ROWS, WrittenCheckpoint
from tests.support.weight_trees import tree_of


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


def test_weights_multiply_the_adapters_rows(
    components: Components, written: WrittenCheckpoint
) -> None:
    plain = tokenize("red smile", components.qwen, components.t5)
    weights = [1.0 + 0.1 * i for i in range(len(plain.t5_ids))]
    text = written.card.text
    weighted = encode_tokens(plain._replace(t5_weights=weights), components, text)
    rows = torch.tensor([*weights, *[1.0] * (CONTEXT_ROWS - len(weights))])[:, None]
    assert torch.allclose(weighted, encode_tokens(plain, components, text) * rows, atol=1e-6)


def test_a_prompt_equals_itself_padded_and_masked_in_a_batch(
    components: Components, written: WrittenCheckpoint
) -> None:
    """Leaving padding out equals masking it, as in the adapter's training."""
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
        found = encode_tokens(prompt, components, written.card.text)
        assert torch.allclose(found, row, atol=1e-5)


def test_an_empty_prompt_is_encoded_as_in_training(
    encoder: TextEncoder, written: WrittenCheckpoint
) -> None:
    """Attending to one zero state equals a fully masked row."""
    made = written.made
    states = torch.zeros(1, 3, 32)
    end = torch.tensor([[made.t5.token_to_id("</s>")]])
    masked = made.conditioner(
        states, end, torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)
    )[0]
    assert torch.isfinite(masked).all()
    for prompt in ("", "()", "(())"):
        assert torch.allclose(context(encoder, prompt), masked, atol=1e-6), prompt


def test_an_empty_prompt_can_be_encoded_as_in_comfyui(
    components: Components, written: WrittenCheckpoint
) -> None:
    """As Qwen's padding token alone, 151643 in the published tokenizer."""
    made, architecture = written.made, written.card.text
    (pad,) = tokenize("", components.qwen, components.t5).qwen_ids
    config = Qwen3Config.from_dict({**made.text_encoder.config.to_dict(), "vocab_size": pad + 1})
    torch.manual_seed(1)  # weights for which the two differ clearly
    library = Qwen3Model(config).eval()
    wider = replace(components, text_encoder=tree_of(library))
    comfy = TextEncoder(wider, architecture.model_copy(update={"empty_prompt": "comfy"}))
    states = library(input_ids=torch.tensor([[pad]])).last_hidden_state
    expected = made.conditioner(states, torch.tensor([[made.t5.token_to_id("</s>")]]))[0]
    training = TextEncoder(wider, architecture)
    for prompt in ("", "()"):
        assert torch.allclose(context(comfy, prompt), expected, atol=1e-6), prompt
        difference = context(training, prompt) - expected
        assert difference.norm() > 0.1 * expected.norm(), prompt
    assert torch.equal(context(comfy, "1girl"), context(training, "1girl"))


def test_a_text_encoder_without_the_padding_token_is_refused(
    components: Components, written: WrittenCheckpoint
) -> None:
    architecture = written.card.text.model_copy(update={"empty_prompt": "comfy"})
    foreign = replace(components, qwen=published_tokenizers().qwen)
    with pytest.raises(CheckpointError, match="151643"):
        TextEncoder(foreign, architecture)


def test_unusual_prompts_have_finite_contexts(encoder: TextEncoder) -> None:
    for prompt in (" ", "\n\t", "夜の街", "🙂", "a" * 5000, "\\(", "( )"):
        encoded = encoder.encode(prompt)
        assert encoded.context.shape == (CONTEXT_ROWS, 20), prompt[:20]
        assert torch.isfinite(encoded.context).all(), prompt[:20]


def test_a_long_prompt_is_cut(encoder: TextEncoder, components: Components) -> None:
    encoded = encoder.encode("smile " * 50)
    assert encoded.is_cut
    assert encoded.max_tokens == CONTEXT_ROWS
    assert encoded.t5_count > CONTEXT_ROWS
    assert encoded.qwen_count == 300
    assert encoded.context[-1].any()
    assert not encoder.encode("smile").is_cut


def test_a_prompt_has_at_most_as_many_tokens_as_rows(components: Components) -> None:
    narrow = TextEncoder(components, TextArchitecture(context_rows=CONTEXT_ROWS, max_tokens=512))
    assert narrow.encode("smile " * 50).context.shape == (CONTEXT_ROWS, 20)


def test_contexts_are_cached_by_text(encoder: TextEncoder) -> None:
    assert encoder.encode("red hair") is encoder.encode("red hair")
    assert not torch.equal(context(encoder, "red hair"), context(encoder, "red smile"))


def test_a_refused_prompt_is_refused_again(encoder: TextEncoder) -> None:
    for _ in range(2):
        with pytest.raises(PromptError, match="nan"):
            encoder.encode("(cat:nan)")

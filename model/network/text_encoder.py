"""Encodes prompts: weighted prompt -> token ids -> Qwen3 states -> adapter -> context rows."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Model

from model.card import TextArchitecture
from model.errors import CheckpointError
from model.prompting.tokens import Tokens, is_empty_prompt, pad_id, tokenize, truncate

_CACHED_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """An encoded prompt: `context` is (rows, dim) float32, the input of the transformer.

    Its first `tokens` rows are the text; the others are zero. The counts are those of the whole
    prompt. `is_cut` is true if a count exceeds `max_tokens` and the rest was dropped.
    """

    context: Tensor
    tokens: int
    qwen_count: int
    t5_count: int
    max_tokens: int
    is_cut: bool


class TextModels(Protocol):
    """The parts of a loaded checkpoint that encode prompts."""

    @property
    def text_encoder(self) -> Qwen3Model: ...
    @property
    def conditioner(self) -> AnimaTextConditioner: ...
    @property
    def qwen(self) -> Tokenizer: ...
    @property
    def t5(self) -> Tokenizer: ...


class TextEncoder:
    """Encodes prompts with a loaded checkpoint and caches the latest ones."""

    def __init__(self, models: TextModels, architecture: TextArchitecture) -> None:
        self._models = models
        self._max_tokens = architecture.token_limit
        self._is_comfy = architecture.empty_prompt == "comfy"
        if self._is_comfy:
            _require_pad(models)
        self._cached = lru_cache(_CACHED_PROMPTS)(self._encode)

    def encode(self, text: str, variant: Hashable = ()) -> EncodedPrompt:
        """Encode a prompt. Returns the same object for the same text and variant.

        `variant` identifies the weights that the models have now, if these can change.

        Raises:
            PromptError: a weight or the nesting of brackets is out of bounds.
        """
        return self._cached(text, variant)

    def _encode(self, text: str, variant: Hashable) -> EncodedPrompt:
        models = self._models
        tokens = tokenize(text, models.qwen, models.t5)
        kept = truncate(tokens, self._max_tokens)
        return EncodedPrompt(
            context=encode_tokens(kept, models, is_comfy=self._is_comfy),
            tokens=len(kept.t5_ids),
            qwen_count=len(tokens.qwen_ids),
            t5_count=len(tokens.t5_ids),
            max_tokens=self._max_tokens,
            is_cut=kept != tokens,
        )


@torch.no_grad()
def encode_tokens(tokens: Tokens, models: TextModels, *, is_comfy: bool = False) -> Tensor:
    """Encode tokens that fit into the context; returns (rows, dim) float32.

    context = adapter(Qwen3's last hidden state, T5 ids) * weights, then zero rows, which the
    transformer attends to as well. Without padding no mask is needed. For an empty prompt, one
    zero vector replaces Qwen3's states, as in training for dropped captions; with `is_comfy` it
    is Qwen3's state of the padding token, as in ComfyUI.
    """
    device = models.text_encoder.device
    if is_empty_prompt(tokens, models.qwen) and not is_comfy:
        source = torch.zeros(1, 1, models.text_encoder.config.hidden_size, device=device)
    else:
        qwen_ids = torch.tensor([tokens.qwen_ids], device=device)
        source = models.text_encoder(input_ids=qwen_ids, use_cache=False).last_hidden_state
    t5_ids = torch.tensor([tokens.t5_ids], device=device)
    context: Tensor = models.conditioner(source, t5_ids)[0].float()
    context[: len(tokens.t5_ids)] *= torch.tensor(tokens.t5_weights, device=device)[:, None]
    return context


def _require_pad(models: TextModels) -> None:
    """Refuse a text encoder that has no row for the padding token."""
    pad, rows = pad_id(models.qwen), models.text_encoder.config.vocab_size
    if pad >= rows:
        raise CheckpointError(
            f'empty_prompt "comfy" needs the padding token {pad}; the text encoder has {rows} rows'
        )

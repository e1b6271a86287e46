"""Encodes prompts: weighted prompt -> token ids -> Qwen3 states -> adapter -> context rows."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from model.card import TextArchitecture
from model.errors import CheckpointError
from model.network.text.networks import adapted, qwen_states
from model.network.weight_tree import Float32Tree
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
    def text_encoder(self) -> Float32Tree: ...
    @property
    def conditioner(self) -> Float32Tree: ...
    @property
    def qwen(self) -> Tokenizer: ...
    @property
    def t5(self) -> Tokenizer: ...


class TextEncoder:
    """Encodes prompts with a loaded checkpoint and caches the latest ones."""

    def __init__(self, models: TextModels, architecture: TextArchitecture) -> None:
        self._models = models
        self._architecture = architecture
        if architecture.empty_prompt == "comfy":
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
        models, limit = self._models, self._architecture.token_limit
        tokens = tokenize(text, models.qwen, models.t5)
        kept = truncate(tokens, limit)
        return EncodedPrompt(
            context=encode_tokens(kept, models, self._architecture),
            tokens=len(kept.t5_ids),
            qwen_count=len(tokens.qwen_ids),
            t5_count=len(tokens.t5_ids),
            max_tokens=limit,
            is_cut=kept != tokens,
        )


@torch.no_grad()
def encode_tokens(tokens: Tokens, models: TextModels, architecture: TextArchitecture) -> Tensor:
    """Encode tokens that fit into the context; returns (rows, dim) float32.

    context = adapter(Qwen3's last hidden state, T5 ids) * weights, then zero rows, which the
    transformer attends to as well. Without padding no mask is needed. For an empty prompt, one
    zero vector replaces Qwen3's states, as in training for dropped captions; if `architecture`
    says "comfy" it is Qwen3's state of the padding token, as in ComfyUI.
    """
    table: Tensor = models.text_encoder.embed_tokens.weight
    device = table.device
    if is_empty_prompt(tokens, models.qwen) and architecture.empty_prompt != "comfy":
        source = torch.zeros(1, 1, table.shape[1], device=device)
    else:
        source = qwen_states(
            models.text_encoder,
            torch.tensor([tokens.qwen_ids], device=device),
            theta=architecture.qwen_rope_theta,
            epsilon=architecture.qwen_rms_norm_eps,
        )
    rows = adapted(models.conditioner, source, torch.tensor([tokens.t5_ids], device=device))[0]
    rows *= torch.tensor(tokens.t5_weights, device=device)[:, None]
    return functional.pad(rows, (0, 0, 0, architecture.context_rows - len(rows)))


def _require_pad(models: TextModels) -> None:
    """Refuse a text encoder that has no row for the padding token."""
    pad, rows = pad_id(models.qwen), len(models.text_encoder.embed_tokens.weight)
    if pad >= rows:
        raise CheckpointError(
            f'empty_prompt "comfy" needs the padding token {pad}; the text encoder has {rows} rows'
        )

"""The text path: weighted prompt -> token ids -> Qwen3 states -> adapter -> context rows.

The grammar of weights and escapes is ComfyUI's. Knows neither files nor the transformer.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Model

from model.card import TextArchitecture
from model.errors import PromptError

QWEN_PAD = "<|endoftext|>"
T5_EOS = "</s>"
MAX_WEIGHT = 10.0
MAX_NESTING = 20
_BRACKET_WEIGHT = 1.1
_CACHED_PROMPTS = 64

_ATOM = re.compile(r"\\[()]|.", re.DOTALL)
# Tokenizers read "</s>" or "<|im_end|>" in a prompt as control tokens; T5 also in full width.
_SPECIAL_TOKEN = re.compile(r"([<＜﹤])(?=[^<>＜＞﹤﹥\s]+[>＞﹥])")


class Tokens(NamedTuple):
    """A prompt as ids. `t5_weights` has one weight per T5 id; Qwen has none.

    An empty prompt has the Qwen ids [pad], which no real text yields, and the T5 ids [EOS].
    """

    qwen_ids: list[int]
    t5_ids: list[int]
    t5_weights: list[float]


class Segment(NamedTuple):
    """A piece of prompt with one weight, brackets and backslashes of escapes removed."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the transformer reads it: `context` is (rows, dim) float32.

    The counts are those of the whole prompt; `is_cut` says that more than `max_tokens` of either
    kind were there and the rest was left out.
    """

    context: Tensor
    qwen_count: int
    t5_count: int
    max_tokens: int
    is_cut: bool


class TextModels(Protocol):
    """What the text path needs of a loaded checkpoint."""

    @property
    def text_encoder(self) -> Qwen3Model: ...
    @property
    def conditioner(self) -> AnimaTextConditioner: ...
    @property
    def qwen(self) -> Tokenizer: ...
    @property
    def t5(self) -> Tokenizer: ...


class TextEncoder:
    """Encodes prompts with a loaded checkpoint and remembers the latest ones."""

    def __init__(self, models: TextModels, architecture: TextArchitecture) -> None:
        self._models = models
        self._max_tokens = min(architecture.max_tokens, architecture.context_rows)
        self._cached = lru_cache(_CACHED_PROMPTS)(self._encode)

    def encode(self, text: str) -> EncodedPrompt:
        """Return the context of a prompt; the same object for the same text.

        Raises:
            PromptError: a weight or the nesting of brackets is out of bounds.
        """
        return self._cached(text)

    def _encode(self, text: str) -> EncodedPrompt:
        models = self._models
        tokens = tokenize(text, models.qwen, models.t5)
        kept = cut(tokens, self._max_tokens)
        return EncodedPrompt(
            context=encode(kept, models),
            qwen_count=len(tokens.qwen_ids),
            t5_count=len(tokens.t5_ids),
            max_tokens=self._max_tokens,
            is_cut=kept != tokens,
        )


def tokenize(text: str, qwen: Tokenizer, t5: Tokenizer) -> Tokens:
    """Turn a prompt into ids; each weighted segment is tokenized on its own.

    Text that looks like a control token is taken apart, so it never becomes one. transformers'
    tokenizers are taken for the raw ones that they wrap.

    Raises:
        PromptError: a weight is not finite or beyond 10, or brackets nest deeper than 20.
    """
    qwen, t5 = (getattr(wrapper, "backend_tokenizer", wrapper) for wrapper in (qwen, t5))
    qwen_ids: list[int] = []
    t5_ids: list[int] = []
    t5_weights: list[float] = []
    for segment in parse(text):
        inert = _SPECIAL_TOKEN.sub(r"\1 ", segment.text)
        qwen_ids += _ids(inert, qwen)
        added = _ids(inert, t5)
        t5_ids += added
        t5_weights += [segment.weight] * len(added)
    return Tokens(
        qwen_ids or [_pad_id(qwen)],
        [*t5_ids, _end_id(t5)],
        [*t5_weights, 1.0],
    )


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _pad_id(qwen: Tokenizer) -> int:
    """Qwen's id of nothing: its end-of-text token, which follows the vocabulary of real text."""
    pad: int | None = qwen.token_to_id(QWEN_PAD)
    return qwen.get_vocab_size(with_added_tokens=False) if pad is None else pad


def _end_id(t5: Tokenizer) -> int:
    end: int | None = t5.token_to_id(T5_EOS)
    if end is None:
        raise ValueError(f"the T5 tokenizer has no end token {T5_EOS}")
    return end


def cut(tokens: Tokens, max_tokens: int) -> Tokens:
    """Keep at most `max_tokens` ids of each kind; the T5 end token stays the last one."""
    if len(tokens.t5_ids) > max_tokens:
        t5_ids = [*tokens.t5_ids[: max_tokens - 1], tokens.t5_ids[-1]]
        t5_weights = [*tokens.t5_weights[: max_tokens - 1], tokens.t5_weights[-1]]
        tokens = tokens._replace(t5_ids=t5_ids, t5_weights=t5_weights)
    return tokens._replace(qwen_ids=tokens.qwen_ids[:max_tokens])


@torch.no_grad()
def encode(tokens: Tokens, models: TextModels) -> Tensor:
    """Return the context (rows, dim) float32 of tokens that fit into the rows.

    context = adapter(Qwen3's last hidden state, T5 ids) * weights, then zero rows: the transformer
    attends to those too. Without padding there is nothing to mask. An empty prompt is what
    training used for dropped captions: one zero vector in place of Qwen3's states.
    """
    device = models.text_encoder.device
    if tokens.qwen_ids == [_pad_id(models.qwen)]:
        source = torch.zeros(1, 1, models.text_encoder.config.hidden_size, device=device)
    else:
        qwen_ids = torch.tensor([tokens.qwen_ids], device=device)
        source = models.text_encoder(input_ids=qwen_ids, use_cache=False).last_hidden_state
    t5_ids = torch.tensor([tokens.t5_ids], device=device)
    context: Tensor = models.conditioner(source, t5_ids)[0].float()
    context[: len(tokens.t5_ids)] *= torch.tensor(tokens.t5_weights, device=device)[:, None]
    return context


def parse(text: str) -> list[Segment]:
    r"""Split a prompt into segments of one weight each.

    `(x)` multiplies the weight by 1.1, `(x:1.3)` sets it, `\(` and `\)` are letters. A bracket
    that does not close stays text, though the prompt is split there.

    Raises:
        PromptError: a weight is not finite or beyond 10, or brackets nest deeper than 20.
    """
    atoms = _ATOM.findall(text)
    return [
        Segment("".join(atom[-1] for atom in part), weight)
        for part, weight in _weighted(atoms, weight=1.0, position=0)
    ]


def _weighted(
    atoms: Sequence[str], *, weight: float, position: int
) -> Iterator[tuple[Sequence[str], float]]:
    """Yield runs of atoms with their weights; `position` is where `atoms` begin in the prompt."""
    for group in _groups(atoms, position):
        if len(group) >= 2 and group[0] == "(" and group[-1] == ")":
            inner, explicit = _split_weight(group[1:-1])
            inner_weight = weight * _BRACKET_WEIGHT if explicit is None else explicit
            if not (math.isfinite(inner_weight) and abs(inner_weight) <= MAX_WEIGHT):
                raise PromptError(
                    f"weight {inner_weight:g} of the bracket at position {position} is not a "
                    f"number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
                )
            yield from _weighted(inner, weight=inner_weight, position=position + 1)
        else:
            yield group, weight
        position += sum(map(len, group))


def _groups(atoms: Sequence[str], position: int) -> Iterator[Sequence[str]]:
    """Split at the outermost brackets: "a (b) c" -> "a ", "(b)", " c"."""
    start = depth = 0
    for index, atom in enumerate(atoms):
        if atom == "(":
            if depth == 0 and index > start:
                yield atoms[start:index]
                start = index
            depth += 1
            if depth > MAX_NESTING:
                raise PromptError(
                    f"brackets nest deeper than {MAX_NESTING} at position "
                    f"{position + sum(map(len, atoms[:index]))}"
                )
        elif atom == ")":
            depth -= 1
            if depth == 0:
                yield atoms[start : index + 1]
                start = index + 1
    if start < len(atoms):
        yield atoms[start:]


def _split_weight(atoms: Sequence[str]) -> tuple[Sequence[str], float | None]:
    """Split "red hair:1.3" into its text and its weight; None where there is no weight."""
    colon = max((index for index, atom in enumerate(atoms) if atom == ":"), default=0)
    if colon == 0:
        return atoms, None
    try:
        return atoms[:colon], float("".join(atoms[colon + 1 :]))
    except ValueError:
        return atoms, None

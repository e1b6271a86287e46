"""Trains transformer, conditioner and text encoder together, by flow matching on cached latents.

Knows the library's classes and the captions; refuses to know how pictures are drawn or decoded.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from training.pictures.avatars import EYE_PLACE, Avatar, head_center, unit
from training.pictures.captions import BAD_WORDS, OTHER_BAD_WORDS, caption, prompt
from training.pictures.dataset import (
    HELD_OUT,
    SIZES,
    Size,
    latents_path,
    load_avatars,
    redrawn_path,
)
from training.pictures.tokenizers import T5_PAD, T5_SPACE, load_tokenizers
from training.train import loop

log = logging.getLogger(__name__)

HEADS, HEAD_DIM, BLOCKS, MLP_RATIO, ADALN_DIM = 4, 48, 6, 3.0, 32
TEXT_DIM, TEXT_HEADS, TEXT_LAYERS, TEXT_MLP = 128, 4, 2, 256
CONTEXT_ROWS = 80  # zero rows behind the text are attended to, so their number is part of it
QWEN_ROWS = 96  # all captions have room in it: one compiled shape
ROPE_SCALE = (1.0, 1.0, 1.0)
ROPE_THETA = 1e6  # Qwen3's
SHIFT = 3.0

CAPTIONS_PER_STEP = 16
BAD_WORDS_SHARE = 0.18  # of bad pictures' captions; a third of it for all others
SPLIT_SHARE = 0.1  # of the captions get lone spaces, which only weighted prompts have
NOISES = 2  # per caption: the text costs as much as the picture
SIZE_SHARES = (0.50, 0.15, 0.15, 0.20)
PEAK_RATE = 2e-3
WEIGHT_DECAY = 0.01
EYE_WEIGHT = 6.0  # eyes are a twentieth of a picture, and their colour was the last thing learnt
EYE_REACH = (0.1, 0.12)  # half width and half height, in the composition's unit
WARM_UP = 200
REDRAWN_SHARE, REDRAW_FROM, REDRAW_STEPS, REDRAW_CFG = 0.2, 0.6, 6, 4.0
HOLD = 0.4


class Anima(nn.Module):
    """The three networks that learn together, as the library defines them."""

    def __init__(self, qwen_vocabulary: int, t5_vocabulary: int):
        super().__init__()
        self.transformer = CosmosTransformer3DModel(
            in_channels=16,
            out_channels=16,
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            num_layers=BLOCKS,
            mlp_ratio=MLP_RATIO,
            text_embed_dim=TEXT_DIM,
            adaln_lora_dim=ADALN_DIM,
            rope_scale=ROPE_SCALE,
            concat_padding_mask=False,
            extra_pos_embed_type=None,
        )
        self.conditioner = AnimaTextConditioner(
            source_dim=TEXT_DIM,
            target_dim=TEXT_DIM,
            model_dim=TEXT_DIM,
            num_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_HEADS,
            mlp_ratio=2.0,
            target_vocab_size=t5_vocabulary,
            min_sequence_length=CONTEXT_ROWS,
        )
        self.text_encoder = Qwen3Model(qwen_config(qwen_vocabulary))
        self._start()

    def _start(self) -> None:
        """Let every block begin as the identity and the prediction at zero."""
        for name, module in self.transformer.named_modules():
            is_gate = name.endswith(("norm1.linear_2", "norm2.linear_2", "norm3.linear_2"))
            if is_gate or name in (
                "proj_out",
                "norm_out.linear_2",
                "time_embed.t_embedder.linear_2",
            ):
                nn.init.zeros_(module.weight)
        nn.init.normal_(self.conditioner.embed.weight, std=0.5)

    def context(self, qwen: Tensor, t5: Tensor, lengths: Tensor) -> Tensor:
        """Token ids (B, L), padded at the right, to the context (B, 80, 128).

        `lengths` counts the Qwen ids; 0 stands for the empty prompt, whose states are zero behind
        one attended key. Causal states do not see the padding, so Qwen itself needs no mask.
        """
        states = self.text_encoder(input_ids=qwen, use_cache=False).last_hidden_state
        states = states * (lengths > 0)[:, None, None]
        positions = torch.arange(qwen.shape[1])
        source_mask = positions[None, :] < lengths.clamp(min=1)[:, None]
        context: Tensor = self.conditioner(
            states, t5, target_attention_mask=t5 != T5_PAD, source_attention_mask=source_mask
        )
        return context

    def forward(self, latents: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """Velocity (B, 16, 1, h, w) at noise level `sigma` (B,) in [0, 1], float32."""
        velocity: Tensor = self.transformer(latents, sigma, context, return_dict=False)[0]
        return velocity.float()


def qwen_config(vocabulary: int) -> Qwen3Config:
    """The small text encoder; plain attention, because its backward pass is fast on a CPU."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=TEXT_DIM,
        intermediate_size=TEXT_MLP,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        num_key_value_heads=TEXT_HEADS // 2,
        head_dim=TEXT_DIM // TEXT_HEADS,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    config._attn_implementation = "eager"
    config.rope_parameters = {"rope_type": "default", "rope_theta": ROPE_THETA}
    return config


class PlainAttention:
    """The transformer's attention as matrix products.

    Same result as the library's processor; the fused kernel's backward pass is more than half
    of a training step on a CPU.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            raise ValueError("the transformer's attention takes no mask")
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            layer(rows).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for layer, rows in (
                (attn.to_q, hidden_states),
                (attn.to_k, source),
                (attn.to_v, source),
            )
        )
        q, k = attn.norm_q(q), attn.norm_k(k)
        if image_rotary_emb is not None:
            q, k = _rotate(q, image_rotary_emb), _rotate(k, image_rotary_emb)
        return attn.to_out[0](_attend(q, k, v, None))  # type: ignore[no-any-return]


class PlainTextAttention:
    """The conditioner's attention as matrix products, for the same reason."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        encoder_position_embeddings: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        heads = attn.num_attention_heads
        layers = (attn.q_proj, hidden_states), (attn.k_proj, source), (attn.v_proj, source)
        q, k, v = (layer(rows).unflatten(2, (heads, -1)).transpose(1, 2) for layer, rows in layers)
        q, k = attn.q_norm(q), attn.k_norm(k)
        if position_embeddings is not None and encoder_position_embeddings is not None:
            q, k = _rotate(q, position_embeddings), _rotate(k, encoder_position_embeddings)
        return attn.o_proj(_attend(q, k, v, attention_mask))  # type: ignore[no-any-return]


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.float().chunk(2, -1)
    return x.float() * cos + torch.cat([-second, first], -1) * sin


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of (B, heads, L, dim) as (B, L, heads * dim); mask True where a key counts."""
    logits = (q.to(v.dtype) * q.shape[-1] ** -0.5) @ k.to(v.dtype).transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    weights = torch.softmax(logits, -1, dtype=torch.float32).to(v.dtype)
    return (weights @ v).transpose(1, 2).flatten(2, 3)


class Batches:
    """Fresh captions of random pictures of one size, with their normalised latents."""

    def __init__(self, folder: Path, out: Path, rng: np.random.Generator):
        self._rng = rng
        self._qwen, self._t5 = load_tokenizers(out / "tokenizers")
        self._avatars = {size: load_avatars(folder, size) for size in SIZES}
        mean, std = latent_statistics(folder)
        self._latents = {
            size: (torch.from_numpy(np.load(latents_path(folder, size))) - mean) / std
            for size in SIZES
        }

    def next(self) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Latents (B, 16, 1, h, w) and what `Anima.context` takes."""
        size = SIZES[int(self._rng.choice(len(SIZES), p=SIZE_SHARES))]
        count = len(self._avatars[size]) - HELD_OUT
        chosen = self._rng.choice(count, CAPTIONS_PER_STEP, replace=False)
        texts = [_caption(self._avatars[size][i], self._rng) for i in chosen]
        qwen, t5, lengths = encode(texts, self._qwen, self._t5)
        for row in np.flatnonzero(self._rng.random(len(t5)) < SPLIT_SHARE):
            t5[row] = _split_segments(t5[row], self._rng)
        return self._latents[size][chosen][:, :, None], (qwen, t5, lengths)


def _caption(avatar: Avatar, rng: np.random.Generator) -> str:
    """A caption, or now and then bad words alone, as a negative prompt has them.

    Every picture may get those: were they for bad pictures only, guidance would multiply what
    spoils these, and colours would burn. Bad pictures get them more often, so they keep a meaning.
    """
    is_bad = avatar.quality == "low quality"
    if rng.random() >= (BAD_WORDS_SHARE if is_bad else BAD_WORDS_SHARE / 3):
        return caption(avatar, rng)
    pool = BAD_WORDS if rng.random() < 0.5 else (*BAD_WORDS, *OTHER_BAD_WORDS)
    words = rng.permutation(pool)[: int(rng.integers(1, len(pool) + 1))]
    return ", ".join(words)


def _split_segments(ids: Tensor, rng: np.random.Generator) -> Tensor:
    """Put T5's lone space before some ids, as at the start of a weighted prompt's segments."""
    free = int((ids == T5_PAD).sum())
    used = len(ids) - free
    if used == 1:  # the empty prompt stays as it is
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


def sample_sigmas(count: int) -> Tensor:
    """Logit-normal noise levels with shift 3, one from each of `count` equal quantiles."""
    quantiles = (torch.randperm(count) + torch.rand(count)) / count
    u = torch.sigmoid(torch.special.ndtri(quantiles.clamp(1e-6, 1 - 1e-6)))
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def flow_loss(model: Anima, latents: Tensor, text: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Mean squared error of the velocity noise - x0, `NOISES` noise levels per picture."""
    with torch.autocast("cpu", torch.bfloat16):
        context = model.context(*text).repeat_interleave(NOISES, 0)
        x0 = latents.repeat_interleave(NOISES, 0)
        sigma, noise = sample_sigmas(len(x0)), torch.randn_like(x0)
        level = sigma[:, None, None, None, None]
        velocity = model((1 - level) * x0 + level * noise, sigma, context)
    weight = eye_weights(x0.shape[-2], x0.shape[-1])
    errors = (velocity - (noise - x0)).square()
    loss: Tensor = (weight * errors).mean() / weight.mean()
    return loss


@lru_cache
def eye_weights(height: int, width: int) -> Tensor:
    """How much each latent pixel (height, width) counts: EYE_WEIGHT on the eyes, 1 elsewhere."""
    size = (8 * width, 8 * height)
    middle_x, middle_y = head_center(*size)
    x = (8 * torch.arange(width) + 4 - middle_x) / unit(*size)
    y = (8 * torch.arange(height)[:, None] + 4 - middle_y) / unit(*size)
    across = (x.abs() - EYE_PLACE[0]) / EYE_REACH[0]
    down = (y - EYE_PLACE[1]) / EYE_REACH[1]
    return torch.where(across**2 + down**2 <= 1, EYE_WEIGHT, 1.0)


def parameter_groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Matrices decay; norms, biases and embeddings do not."""
    named = list(model.named_parameters())
    matrices = [
        p for n, p in named if p.ndim == 2 and "embed.weight" not in n and "embed_tokens" not in n
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    return [
        {"params": matrices, "weight_decay": WEIGHT_DECAY, "peak": rate},
        {"params": rest, "weight_decay": 0.0, "peak": rate},
    ]


def prepare(model: Anima, *, is_compiled: bool) -> None:
    """Make the training step fast without changing what it computes."""
    for block in model.transformer.transformer_blocks:
        block.attn1.set_processor(PlainAttention())
        block.attn2.set_processor(PlainAttention())
    for block in model.conditioner.blocks:
        block.self_attn.set_processor(PlainTextAttention())
        block.cross_attn.set_processor(PlainTextAttention())
    if is_compiled:
        parts = model.transformer.transformer_blocks, model.conditioner.blocks
        for block in (*parts[0], *parts[1], *model.text_encoder.layers):
            block.compile(dynamic=False)


def train(
    folder: Path, out: Path, *, minutes: float, seed: int, processes: int, rate: float = PEAK_RATE
) -> None:
    """Train all three; `out/dit.safetensors` resumes and holds the average, `out/dit.csv` logs."""
    loop.run_replicas(_train, (folder, out, minutes, seed, rate), processes)


def _train(
    rank: int, processes: int, folder: Path, out: Path, minutes: float, seed: int, rate: float
) -> None:
    torch.manual_seed(seed)  # the same start everywhere; captions and noises differ by rank
    model = build(out)
    prepare(model, is_compiled=True)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, rate), lr=rate, betas=(0.9, 0.98), fused=True
    )
    average = loop.Average(model)
    gradients = loop.SharedGradients(model.parameters(), processes)
    state, facts = out / "dit.safetensors", {"step": 0.0, "seconds": 0.0, "cpu_seconds": 0.0}
    if state.exists():
        facts = loop.load_state(state, model, average, optimizer)
    step = int(facts["step"])
    torch.manual_seed(seed + 1 + rank + processes * step)
    batches = Batches(folder, out, np.random.default_rng((seed, rank, step)))
    clock = loop.Clock(minutes * 60, facts["seconds"], facts["cpu_seconds"])
    progress, saved, losses = clock.progress, clock.seconds, []
    while progress < 1:
        factor = loop.learning_rate_factor(step, progress, warm_up=WARM_UP, hold=HOLD)
        loop.set_learning_rate(optimizer, factor)
        gradients.clear()
        loss = flow_loss(model, *batches.next())
        loss.backward()  # type: ignore[no-untyped-call]
        progress = gradients.average(clock.progress)
        optimizer.step()
        average.update(model, step)
        step += 1
        losses.append(loss.item())
        if rank == 0 and (clock.seconds - saved > 60 or progress >= 1):
            facts = {"step": step, "seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds}
            loop.save_state(state, model, average, optimizer, **facts)
            samples = step * processes * CAPTIONS_PER_STEP * NOISES
            row = {name: round(value, 1) for name, value in facts.items()}
            row |= {"samples": samples, "loss": round(sum(losses) / len(losses), 4)}
            loop.write_row(out / "dit.csv", row)
            log.info("%s", row)
            saved, losses = clock.seconds, []


def build(out: Path) -> Anima:
    """New networks for the tokenizers of a run."""
    qwen, t5 = load_tokenizers(out / "tokenizers")
    return Anima(qwen.get_vocab_size(), t5.get_vocab_size())


def load(out: Path) -> Anima:
    """The averaged networks of a run, for sampling."""
    model = build(out)
    model.load_state_dict(loop.load_average(out / "dit.safetensors"))
    return model.eval()


@torch.no_grad()
def sample(
    model: Anima, texts: Sequence[str], size: Size, out: Path, *, steps: int = 20, cfg: float = 4.0
) -> Tensor:
    """Normalised latents (B, 16, h, w) by Euler's method, for a quick look."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(texts), 16, 1, size[1] // 8, size[0] // 8, generator=generator)
    u = torch.linspace(1, 0, steps + 1)
    text = encode([*texts, *[""] * len(texts)], *load_tokenizers(out / "tokenizers"))
    return _finish(model, x, SHIFT * u / (1 + (SHIFT - 1) * u), text, cfg)


def _finish(
    model: Anima, x: Tensor, sigmas: Tensor, text: tuple[Tensor, Tensor, Tensor], cfg: float
) -> Tensor:
    """Follow the velocity from `sigmas[0]` to 0; `text` is the prompts, then as many empty."""
    with torch.autocast("cpu", torch.bfloat16):
        context = model.context(*text)
        for sigma, following in pairwise(sigmas):
            velocity = model(torch.cat([x, x]), sigma.expand(2 * len(x)), context)
            told, untold = velocity.chunk(2)
            x = x + (following - sigma) * (untold + cfg * (told - untold))
    return x[:, :, 0]


def redraw(folder: Path, out: Path, *, seed: int, processes: int) -> None:
    """Blur some of the latents with noise and let the transformer finish them.

    The results have the transformer's own small errors beside the pictures they should decode
    to; the decoder learns from them to forgive such errors.
    """
    for size in SIZES:
        shape = np.load(latents_path(folder, size), mmap_mode="r").shape
        shape = (int(shape[0] * REDRAWN_SHARE), *shape[1:])
        np.lib.format.open_memmap(redrawn_path(folder, size), "w+", np.float32, shape)
    loop.run_replicas(_redraw, (folder, out, seed), processes)


@torch.no_grad()
def _redraw(rank: int, processes: int, folder: Path, out: Path, seed: int) -> None:
    torch.manual_seed(seed + 11 + rank)
    model, tokenizers = load(out), load_tokenizers(out / "tokenizers")
    prepare(model, is_compiled=False)
    mean, std = latent_statistics(folder)
    for size in SIZES:
        redrawn = np.load(redrawn_path(folder, size), mmap_mode="r+")
        latents = np.load(latents_path(folder, size), mmap_mode="r")
        avatars = load_avatars(folder, size)
        for start in range(rank * 16, len(redrawn), processes * 16):
            end = min(start + 16, len(redrawn))
            x0 = ((torch.from_numpy(latents[start:end].copy()) - mean) / std)[:, :, None]
            texts = [prompt(avatar) for avatar in avatars[start:end]]
            text = encode([*texts, *[""] * len(texts)], *tokenizers)
            level = REDRAW_FROM * (0.5 + 0.5 * float(torch.rand(())))
            noisy = (1 - level) * x0 + level * torch.randn_like(x0)
            x = _finish(model, noisy, torch.linspace(level, 0, REDRAW_STEPS + 1), text, REDRAW_CFG)
            redrawn[start:end] = (x * std + mean).numpy()

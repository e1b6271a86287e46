"""Writes a small checkpoint of random weights in the published file layout."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from model.card import Card, load_card
from model.files.keymap import (
    TRANSFORMER_PREFIX,
    adapter_to_original,
    text_encoder_to_original,
    transformer_to_original,
    vae_to_original,
)

CONTEXT_ROWS = 40
RES_BLOCKS = 1
LATENTS_MEAN = tuple(0.1 * i - 0.8 for i in range(16))
LATENTS_STD = tuple(0.5 + 0.1 * i for i in range(16))
T5_WORDS = ("masterpiece", "1girl", "red", "hair", "smile")


@dataclass(frozen=True)
class RandomModels:
    """The libraries' modules, float32, with the 17-channel transformer of the published files."""

    transformer: CosmosTransformer3DModel
    conditioner: AnimaTextConditioner
    text_encoder: Qwen3Model
    vae: AutoencoderKLQwenImage
    qwen: Tokenizer
    t5: Tokenizer


def random_models(seed: int = 0) -> RandomModels:
    """Build every part so small that a forward takes milliseconds, with irregular weights."""
    torch.manual_seed(seed)
    qwen, t5 = _qwen_tokenizer(), _t5_tokenizer()
    made = RandomModels(
        transformer=CosmosTransformer3DModel(
            in_channels=16,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=24,
            num_layers=2,
            mlp_ratio=3.0,
            text_embed_dim=20,
            adaln_lora_dim=8,
            max_size=(1, 512, 512),
            rope_scale=(1.0, 4.0, 4.0),
            concat_padding_mask=True,
            extra_pos_embed_type=None,
        ),
        conditioner=AnimaTextConditioner(
            source_dim=32,
            target_dim=20,
            model_dim=20,
            num_layers=2,
            num_attention_heads=2,
            mlp_ratio=2.5,
            target_vocab_size=t5.get_vocab_size(),
            min_sequence_length=CONTEXT_ROWS,
        ),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=qwen.get_vocab_size(),
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            )
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=4,
            num_res_blocks=RES_BLOCKS,
            latents_mean=list(LATENTS_MEAN),
            latents_std=list(LATENTS_STD),
        ),
        qwen=qwen,
        t5=t5,
    )
    for module in (made.transformer, made.conditioner, made.text_encoder, made.vae):
        _randomise(module)
    return made


def tiny_card(**vae: Any) -> Card:
    """Return a card for `random_models`; its limits and advice are those of the shipped one."""
    card = load_card("kirazuri-tiny")
    fields = {
        "transformer": {"rope_scale": (1.0, 4.0, 4.0)},
        "text": {"context_rows": CONTEXT_ROWS, "max_tokens": CONTEXT_ROWS},
        "vae": {
            "base_dim": 4,
            "num_res_blocks": RES_BLOCKS,
            "latents_mean": LATENTS_MEAN,
            "latents_std": LATENTS_STD,
            **vae,
        },
        "files": {
            "transformer": {"path": "anima.safetensors"},
            "text_encoder": {"path": "qwen.safetensors"},
            "vae": {"path": "vae.safetensors"},
            "qwen_tokenizer": "qwen3",
            "t5_tokenizer": "t5",
        },
    }
    return Card.model_validate({**card.model_dump(), **fields})


def write_checkpoint(folder: Path, made: RandomModels, *, prefix: str = TRANSFORMER_PREFIX) -> None:
    """Write the files that `tiny_card` names, under the names that the published files use."""
    save_file(transformer_tensors(made, prefix=prefix), folder / "anima.safetensors")
    save_file(named(made.text_encoder, text_encoder_to_original), folder / "qwen.safetensors")
    save_file(
        named(made.vae, lambda name: vae_to_original(name, RES_BLOCKS)), folder / "vae.safetensors"
    )
    for name, tokenizer in (("qwen3", made.qwen), ("t5", made.t5)):
        (folder / name).mkdir(exist_ok=True)
        tokenizer.save(str(folder / name / "tokenizer.json"))


def transformer_tensors(made: RandomModels, *, prefix: str) -> dict[str, Tensor]:
    """All tensors of the transformer's file."""
    names = {
        **named(made.transformer, transformer_to_original),
        **named(made.conditioner, adapter_to_original),
    }
    return {prefix + name: tensor for name, tensor in names.items()}


def named(module: nn.Module, to_original: Callable[[str], str]) -> dict[str, Tensor]:
    """A module's weights under the names in the files."""
    return {to_original(name): tensor for name, tensor in module.state_dict().items()}


def _randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 1 or parameter.shape[1:].numel() == 1:
            nn.init.normal_(parameter, 1.0, 0.2)
    module.requires_grad_(requires_grad=False).eval()


def _qwen_tokenizer() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _t5_tokenizer() -> Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [("▁" + word, -2.0) for word in T5_WORDS]
    pieces += [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789,.()<>/"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


@dataclass(frozen=True)
class WrittenCheckpoint:
    """The written files, their card, and the modules with their weights."""

    folder: Path
    card: Card
    made: RandomModels

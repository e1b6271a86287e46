"""Saves the shipped checkpoint in every layout of this family of checkpoints."""

import shutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from torch import Tensor
from transformers import Qwen3Model

from model.bench.library import (
    library_conditioner,
    library_text_encoder,
    library_transformer,
    library_vae,
)
from model.card import Card, load_card, shipped_folder
from model.files.checkpoint_check import check_parts
from model.files.keymap import (
    ADAPTER_PREFIX,
    TEXT_ENCODER_PREFIX,
    TRANSFORMER_PREFIX,
    adapter_to_library,
    text_encoder_to_library,
    transformer_to_library,
    vae_to_library,
)
from model.files.layouts import locate_parts

# The libraries' annotations do not cover these uses.
diffusers: Any = import_module("diffusers")
transformers: Any = import_module("transformers")

CARD = load_card("kirazuri-tiny")
SHIPPED = shipped_folder(CARD)
MAIN, QWEN, VAE = (
    file.path for file in (CARD.files.transformer, CARD.files.text_encoder, CARD.files.vae)
)
BUNDLED_QWEN = "text_encoders.qwen3_06b.transformer."

Tensors = dict[str, Tensor]
Write = Callable[[Path], None]


def main_tensors() -> Tensors:
    """Transformer and adapter, without prefix."""
    return {k.removeprefix(TRANSFORMER_PREFIX): v for k, v in load_file(SHIPPED / MAIN).items()}


def save(tensors: Tensors, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def with_prefix(prefix: str, folder: Path) -> None:
    """The transformer's file with another prefix and with the buffers that trainers save."""
    shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
    tensors = {prefix + name: tensor for name, tensor in main_tensors().items()}
    tensors[f"{prefix}pos_embedder.seq"] = torch.arange(8.0)
    tensors[f"{prefix}pos_embedder.dim_spatial_range"] = torch.arange(8.0)
    tensors[f"{prefix}blocks.0.self_attn._extra_state"] = torch.zeros(1)
    tensors[f"{prefix}accum_image_sample_counter"] = torch.zeros(1)
    save(tensors, folder / MAIN)


def all_in_one(
    folder: Path,
    *,
    prefix: str = "model.diffusion_model.",
    parts: tuple[str, ...] = ("qwen", "vae"),
) -> None:
    """One file that holds the transformer, the adapter and `parts`."""
    shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
    tensors = {prefix + name: tensor for name, tensor in main_tensors().items()}
    if "qwen" in parts:
        tensors |= {BUNDLED_QWEN + k: v for k, v in load_file(SHIPPED / QWEN).items()}
        tensors["text_encoders.qwen3_06b.logit_scale"] = torch.tensor(4.6)
        (folder / QWEN).unlink()
    if "vae" in parts:
        tensors |= {f"vae.{k}": v for k, v in load_file(SHIPPED / VAE).items()}
        (folder / VAE).unlink()
    save(tensors, folder / MAIN)


def older_prefixes(folder: Path) -> None:
    """One file with all parts under the prefixes of older checkpoints."""
    all_in_one(folder)
    old = {BUNDLED_QWEN: "cond_stage_model.transformer.", "vae.": "first_stage_model."}
    tensors = load_file(folder / MAIN)
    for name in list(tensors):
        prefix = next(filter(name.startswith, old), "")
        if prefix:
            tensors[old[prefix] + name.removeprefix(prefix)] = tensors.pop(name)
    save(tensors, folder / MAIN)


def compiled_in_training(folder: Path) -> None:
    """The transformer's file as a compiled module, with what a training leaves."""
    shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
    names = {name: f"net._orig_mod.{name}" for name in main_tensors()}
    tensors = {
        names[name].replace("mlp.", "mlp._orig_mod."): tensor
        for name, tensor in main_tensors().items()
    }
    tensors |= {f"model_ema.{name}": tensor * 0 for name, tensor in main_tensors().items()}
    tensors["model_sampling.sigmas"] = torch.arange(1000.0)
    tensors["net.llm_adapter.rotary_emb.inv_freq"] = torch.arange(8.0)
    tensors["net.logvar.1.weight"] = torch.ones(1, 128)
    tensors["model_ema.num_updates"] = torch.tensor(7)
    tensors["optimizer.state.0.step"] = torch.tensor(7)
    save(tensors, folder / MAIN)


def library_names(folder: Path) -> None:
    """The text encoder, with a head, and the VAE under the library's names."""
    shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
    qwen = {
        name.removeprefix(TEXT_ENCODER_PREFIX): tensor
        for name, tensor in load_file(SHIPPED / QWEN).items()
    }
    head = {"lm_head.weight": qwen["embed_tokens.weight"].clone()}
    save(qwen | head, folder / QWEN)
    blocks = CARD.vae.num_res_blocks
    save({vae_to_library(k, blocks): v for k, v in load_file(SHIPPED / VAE).items()}, folder / VAE)


def library_folder(folder: Path, *, max_shard_size: str | None = None) -> None:
    """A whole checkpoint as diffusers' pipeline saves it."""
    pipeline = diffusers.AnimaModularPipeline()
    pipeline.update_components(
        **library_modules(), **library_tokenizers(), scheduler=_library_scheduler()
    )
    pipeline.save_pretrained(
        str(folder), max_shard_size=max_shard_size, overwrite_modular_index=True
    )


def library_modules() -> dict[str, Any]:
    """The library's modules with the shipped weights, bfloat16, with the padding mask's channel."""
    checked = check_parts(locate_parts(CARD.files, SHIPPED).parts, CARD)
    planned = {
        "transformer": library_transformer(checked["transformer"].sizes, CARD),
        "text_conditioner": library_conditioner(checked["conditioner"].sizes, CARD),
        "text_encoder": library_text_encoder(checked["text_encoder"].sizes, CARD),
        "vae": library_vae(CARD),
    }
    configs: dict[str, Any] = {name: module.config for name, module in planned.items()}
    modules = {
        "transformer": CosmosTransformer3DModel.from_config(
            {**configs["transformer"], "concat_padding_mask": True}
        ),
        "text_conditioner": AnimaTextConditioner.from_config(configs["text_conditioner"]),
        "text_encoder": Qwen3Model(configs["text_encoder"]),
        "vae": AutoencoderKLQwenImage.from_config(configs["vae"]),
    }
    states = library_states()
    for name, module in modules.items():
        module.to(torch.bfloat16).load_state_dict(states[name])
    return modules


def library_states() -> dict[str, Tensors]:
    """All weights by the library's names."""
    main = main_tensors()
    adapter = {name: main.pop(name) for name in list(main) if name.startswith(ADAPTER_PREFIX)}
    blocks = CARD.vae.num_res_blocks
    return {
        "transformer": {transformer_to_library(k): v for k, v in main.items()},
        "text_conditioner": {adapter_to_library(k): v for k, v in adapter.items()},
        "text_encoder": {
            text_encoder_to_library(k): v for k, v in load_file(SHIPPED / QWEN).items()
        },
        "vae": {vae_to_library(k, blocks): v for k, v in load_file(SHIPPED / VAE).items()},
    }


def library_tokenizers() -> dict[str, Any]:
    """The shipped tokenizers as the library wraps them."""
    qwen = Tokenizer.from_file(str(SHIPPED / CARD.files.qwen_tokenizer / "tokenizer.json"))
    t5 = Tokenizer.from_file(str(SHIPPED / CARD.files.t5_tokenizer / "tokenizer.json"))
    t5.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", t5.token_to_id("</s>"))]
    )
    wrap = transformers.PreTrainedTokenizerFast
    return {
        "tokenizer": wrap(tokenizer_object=qwen, pad_token="<|endoftext|>"),
        "t5_tokenizer": wrap(tokenizer_object=t5, pad_token="<pad>", eos_token="</s>"),
    }


def _library_scheduler() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)


def at_the_transformers_path(folder: Path) -> None:
    """A folder saved by diffusers at the card's path of the transformer."""
    library_folder(folder / MAIN)


def with_own_paths(**paths: str) -> Card:
    """The card with other paths."""
    files = CARD.files.model_dump()
    for name, path in paths.items():
        files[name] = {"path": path} if isinstance(files[name], dict) else path
    return Card.model_validate({**CARD.model_dump(), "files": files})


LAYOUTS: dict[str, tuple[Write, Card]] = {
    **{
        f"single file, prefix {prefix!r}": (partial(with_prefix, prefix), CARD)
        for prefix in ("net.", "model.diffusion_model.", "diffusion_model.", "")
    },
    "all in one": (all_in_one, CARD),
    "all in one, as the card says": (all_in_one, with_own_paths(text_encoder=MAIN, vae=MAIN)),
    "all in one, bare": (partial(all_in_one, prefix=""), CARD),
    "all in one, VAE apart": (partial(all_in_one, parts=("qwen",)), CARD),
    "all in one, text encoder apart": (partial(all_in_one, parts=("vae",)), CARD),
    "all in one, as older programs name the parts": (older_prefixes, CARD),
    "compiled in training": (compiled_in_training, CARD),
    "library names": (library_names, CARD),
    "library folder": (library_folder, CARD),
    "library folder, sharded": (partial(library_folder, max_shard_size="2MB"), CARD),
    "library folder as the card says": (
        at_the_transformers_path,
        with_own_paths(qwen_tokenizer=f"{MAIN}/tokenizer", t5_tokenizer=f"{MAIN}/t5_tokenizer"),
    ),
}
"""Every layout by name: the function that writes it to a folder, and the card for it."""

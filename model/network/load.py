"""Loads a checkpoint of any layout into modules that are ready to run.

All names and shapes of all parts are checked before the first weight is copied.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model.card import Card, shipped_folder
from model.errors import CheckpointError
from model.files.checkpoint_check import (
    PATCHES,
    check_parts,
    require_vocabularies,
)
from model.files.layouts import CheckpointPart, locate_parts
from model.network.architectures import (
    ModulePlan,
    plan_conditioner,
    plan_text_encoder,
    plan_transformer,
    plan_vae,
    without_vae_encoder,
)
from model.network.transformer.attention import stack_projections
from model.network.transformer.float8 import keep_float8
from model.network.vae.modules import Autoencoder
from model.network.weight_tree import Float32Tree, WeightTree
from model.network.weights import load_weights, load_weights_for_float32, read_dropped_columns
from model.prompting.tokens import load_qwen_tokenizer, load_t5_tokenizer, vocabulary_size

logger = logging.getLogger(__name__)

WORKING_BYTES = 3_700_000_000
"""Room beside all weights, as counted for 1536x1024: a guided forward takes 0.85 GB, the encoding
of an image beside it 2.45, the caches 0.37. An image is decoded in tiles if it does not fit."""


@dataclass(frozen=True, slots=True)
class Components:
    """A loaded checkpoint, frozen and in evaluation mode.

    The text encoder, its adapter and the VAE compute in float32, which costs little; the
    transformer computes in the requested dtype. `vae` has an encoder only if it was requested.
    `sha256` is the hash of the transformer's file, or of the hashes of all its files. The hashes
    of the text encoder and the VAE are computed alike.
    """

    text_encoder: Float32Tree
    conditioner: Float32Tree
    transformer: WeightTree
    vae: Autoencoder
    qwen: Tokenizer
    t5: Tokenizer
    sha256: str
    text_encoder_sha256: str
    vae_sha256: str
    mask_columns: Tensor | None = None
    """The patch embedding's columns for the padding mask, float32. Their input is always zero."""


def load_components(
    card: Card,
    checkpoint_dir: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    has_vae_encoder: bool = False,
    memory: int | None = None,
    float8: bool = False,
) -> Components:
    """Load the checkpoint that `card` describes from `checkpoint_dir`.

    None means the folder that ships with the package. `dtype` is the dtype of the transformer. If
    all parts and room to work do not fit into `memory` bytes of the device, the text encoder and
    its adapter stay on the CPU. With `float8` the transformer keeps its large weights in float8,
    too.

    Raises:
        CheckpointError: a file is missing, truncated, pickled or quantised, its checksum differs
            from the card's, or a key is missing, unknown or of another shape; names file and key.
    """
    folder = checkpoint_dir or shipped_folder(card)
    located = locate_parts(card.files, folder)
    qwen = load_qwen_tokenizer(located.qwen_tokenizer)
    t5 = load_t5_tokenizer(located.t5_tokenizer)
    checked = check_parts(located.parts, card)
    require_vocabularies(checked, (vocabulary_size(qwen), vocabulary_size(t5)))
    conditioner = plan_conditioner(checked["conditioner"], card)
    transformer = plan_transformer(checked["transformer"], card)
    text_encoder = plan_text_encoder(checked["text_encoder"], card)
    vae = plan_vae(checked["vae"], card)
    plans = (vae, text_encoder, conditioner, transformer)
    digests = _checked_digests(plans, folder, card)
    sha256 = _combined_hash(digests, [conditioner.part, transformer.part])
    text_encoder_sha256 = _combined_hash(digests, [text_encoder.part])
    vae_sha256 = _combined_hash(digests, [vae.part])
    if not has_vae_encoder:
        vae = without_vae_encoder(vae)
    needed = _bytes(transformer, dtype) + _bytes(vae, torch.float32) + WORKING_BYTES
    needed += _bytes(text_encoder) + _bytes(conditioner)
    needed += _bytes(transformer, torch.float8_e4m3fn) if float8 else 0
    text_device = device
    if memory is not None and needed > memory and device.type != "cpu":
        text_device = torch.device("cpu")
        logger.info("prompts are encoded on the CPU: all parts need %.1f GB", needed / 1e9)
    return Components(
        vae=load_weights(vae, device, torch.float32),
        text_encoder=load_weights_for_float32(text_encoder, text_device),
        conditioner=load_weights_for_float32(conditioner, text_device),
        transformer=_load_transformer(transformer, device, dtype, float8=float8),
        qwen=qwen,
        t5=t5,
        sha256=sha256,
        text_encoder_sha256=text_encoder_sha256,
        vae_sha256=vae_sha256,
        mask_columns=read_dropped_columns(transformer, PATCHES, device),
    )


def _load_transformer(
    plan: ModulePlan, device: torch.device, dtype: torch.dtype, *, float8: bool
) -> WeightTree:
    loaded: WeightTree = load_weights(plan, device, dtype)
    stack_projections(loaded)
    if float8:
        keep_float8(loaded)
    return loaded


def _bytes(plan: ModulePlan, dtype: torch.dtype | None = None) -> int:
    """Bytes of a part's weights in `dtype`, or as they are stored."""
    if dtype is None:
        return sum(tensor.size for tensor in plan.stored.values())
    return sum(tensor.count for tensor in plan.stored.values()) * dtype.itemsize


def _checked_digests(plans: Iterable[ModulePlan], folder: Path, card: Card) -> dict[Path, str]:
    """SHA-256 of all files. CheckpointError if one differs from the card's checksum."""
    files = {tensor.path for plan in plans for tensor in plan.part.tensors.values()}
    digests = {path: _sha256(path) for path in sorted(files)}
    for file in (card.files.transformer, card.files.text_encoder, card.files.vae):
        found = digests.get(folder / file.path)
        if found is None:
            logger.info("%s is not used: that part is in another file", folder / file.path)
        elif file.sha256 not in (None, found):
            raise CheckpointError(
                f"{folder / file.path} has sha256 {found}; the card says {file.sha256}"
            )
    return digests


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _combined_hash(digests: dict[Path, str], parts: list[CheckpointPart]) -> str:
    """One hash for all files of some parts: a single file's hash, or the hash of all hashes."""
    files = sorted({tensor.path for part in parts for tensor in part.tensors.values()})
    if len(files) == 1:
        return digests[files[0]]
    joined = "\n".join(digests[file] for file in files)
    return hashlib.sha256(joined.encode()).hexdigest()

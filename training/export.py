"""Writes a run as the files of a checkpoint: bfloat16 weights with original keys, tokenizers."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from safetensors.torch import save_file
from torch import Tensor

from model.files import keymap
from training.pictures.tokenizers import load_tiny_tokenizers, save_tokenizers
from training.train import anima, batches, frame_vae, loop

NAME = "kirazuri-tiny"
TRANSFORMER = Path("diffusion_models") / f"{NAME}.safetensors"
TEXT_ENCODER = Path("text_encoders/qwen3-tiny.safetensors")
VAE = Path("vae/qwen-image-vae-tiny.safetensors")
TOKENIZERS = Path("tokenizers")
MASK_COLUMNS = 4  # one patch of the padding mask, a channel of the published network

State = dict[str, Tensor]


def export(data: Path, out: Path, target: Path) -> None:
    """Write the run in `out`, trained on `data`, to the checkpoint folder `target`."""
    model = anima.load(out)
    transformer = rename_transformer(model.transformer.state_dict())
    adapter = _renamed(model.conditioner.state_dict(), keymap.adapter_to_original)
    prefix = keymap.TRANSFORMER_PREFIX
    weights = {prefix + name: tensor for name, tensor in (transformer | adapter).items()}
    _save(target / TRANSFORMER, weights)
    qwen = model.text_encoder.state_dict()
    _save(target / TEXT_ENCODER, _renamed(qwen, keymap.text_encoder_to_original))
    decoder = out / "decoder.safetensors"
    frames = loop.load_average(decoder if decoder.exists() else out / "vae.safetensors")
    _save(target / VAE, rename_vae(frames))
    save_tokenizers(target / TOKENIZERS, *load_tiny_tokenizers(out / TOKENIZERS))
    (out / "architecture.json").write_text(json.dumps(architecture(data), indent=1) + "\n")


def rename_transformer(state: State) -> State:
    """Use the original names; add the padding mask's columns to the patch embedding, as zeros."""
    original = _renamed(state, keymap.transformer_to_original)
    name = keymap.transformer_to_original("patch_embed.proj.weight")
    weight = original[name]
    original[name] = torch.cat([weight, weight.new_zeros(len(weight), MASK_COLUMNS)], 1)
    return original


def rename_vae(frames: State) -> State:
    """Convert the weights of a `FrameVae` to the original names and 3-D shapes."""
    with torch.device("meta"):
        library = AutoencoderKLQwenImage(
            base_dim=frame_vae.BASE_DIM,
            z_dim=frame_vae.LATENT_CHANNELS,
            dim_mult=list(frame_vae.DIM_MULT),
            num_res_blocks=frame_vae.RES_BLOCKS,
            temperal_downsample=list(frame_vae.TEMPERAL_DOWNSAMPLE),
        )
    shapes = {name: tensor.shape for name, tensor in library.state_dict().items()}
    full = frame_vae.expand(frames, shapes)
    return _renamed(full, lambda name: keymap.vae_to_original(name, frame_vae.RES_BLOCKS))


def architecture(data: Path) -> dict[str, object]:
    """Numbers for the card that no tensor contains."""
    mean, std = batches.latent_statistics(data)
    return {
        "transformer": {"rope_scale": anima.ROPE_SCALE},
        "text": {"context_rows": anima.CONTEXT_ROWS, "qwen_rope_theta": anima.ROPE_THETA},
        "vae": {
            "base_dim": frame_vae.BASE_DIM,
            "dim_mult": frame_vae.DIM_MULT,
            "num_res_blocks": frame_vae.RES_BLOCKS,
            "temperal_downsample": frame_vae.TEMPERAL_DOWNSAMPLE,
            "latents_mean": [round(value, 5) for value in mean.flatten().tolist()],
            "latents_std": [round(value, 5) for value in std.flatten().tolist()],
        },
    }


def _renamed(state: State, to_original: Callable[[str], str]) -> State:
    return {to_original(name): tensor for name, tensor in state.items()}


def _save(path: Path, state: State) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wrong = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if wrong:
        raise FloatingPointError(f"not finite: {', '.join(wrong)}")
    packed = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}
    save_file(packed, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors sets mode 600; other users of a container must read it

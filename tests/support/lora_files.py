"""Writes small LoRA files."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file


def write(path: Path, *, value: float = 0.0, metadata: dict[str, str] | None = None) -> str:
    """Write a LoRA of one layer of kirazuri-tiny; returns its SHA-256."""
    stem = "diffusion_model.blocks.0.self_attn.q_proj"
    tensors = {
        f"{stem}.lora_A.weight": torch.full((2, 192), float(value)),
        f"{stem}.lora_B.weight": torch.zeros(192, 2),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    return hashlib.sha256(path.read_bytes()).hexdigest()

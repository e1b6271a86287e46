"""Writes random LoRA files with `oft_R`, as peft and OneTrainer write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from model.files.lora.targets import LoraTarget
from tests.support.lora_reference import Array
from tests.support.random_loras import DTYPES, STRENGTHS, RandomChange, RandomLora, fits

_WRITERS = ("peft exact", "peft series", "peft old series", "onetrainer", "onetrainer scaled")
_PREFIXES = {"transformer": "transformer", "adapter": "text_conditioner"}


def draw_rotations(seed: int, folder: Path, targets: list[LoraTarget]) -> RandomLora:
    """Write a file, and peft's configuration beside it, that rotate a few of the targets."""
    random = np.random.default_rng(seed)
    writer = str(random.choice(_WRITERS))
    config, stated = _statement(random, writer)
    dtype = DTYPES[random.integers(len(DTYPES))]
    matrices = [target for target in targets if len(target.shape) == 2]
    order = random.permutation(len(matrices))[: random.integers(2, 6)]
    changes, stored = [], {}
    chosen = [matrices[index] for index in order]
    if random.random() < 0.3:  # embeddings are rare among the modules
        chosen += [t for t in matrices if fits("embedding", t) and t not in chosen][:1]
    for target in chosen:
        sizes = [size for size in range(2, target.shape[1] + 1) if target.shape[1] % size == 0]
        size = int(random.choice(sizes))
        count = 1 if random.random() < 0.3 else target.shape[1] // size
        drawn = torch.from_numpy(random.normal(0, 0.5 / size, (count, size * (size - 1) // 2)))
        drawn = drawn.to(dtype)
        is_embedding = fits("embedding", target) and writer.startswith("peft")
        role, end = ("oft_embedding_r", "oft_embedding_R") if is_embedding else ("oft_r", "oft_R")
        tensors: dict[str, Array] = {role: drawn.double().numpy(), **stated}
        stem = f"{_PREFIXES.get(target.part, target.part)}.{target.module}"
        stored[f"{stem}.{end}.weight"] = drawn
        if "scaled_oft" in stated:
            stored[f"{stem}.{end}.scaled_oft"] = torch.tensor(1).to(dtype)
        changes.append(RandomChange(target, "peft_oft", tensors, None, 1))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "adapter_model.safetensors"
    save_file(stored, path, metadata=None if config else {"ot_branch": "master"})
    beside = folder / "adapter_config.json"
    beside.write_text(json.dumps(config)) if config else beside.unlink(missing_ok=True)
    return RandomLora(path, float(random.choice(STRENGTHS)), changes)


def _statement(
    random: np.random.Generator, writer: str
) -> tuple[dict[str, Any] | None, dict[str, Array]]:
    """Peft's configuration, None for OneTrainer, and the numbers that it means."""
    if writer.startswith("onetrainer"):
        scaled = {"scaled_oft": np.array(1.0)} if writer.endswith("scaled") else {}
        return None, {"series": np.array([1.0, 2, 2, 2, 1]), **scaled}
    terms = int(random.integers(3, 9))
    config: dict[str, Any] = {
        "peft_type": "OFT",
        "use_cayley_neumann": writer != "peft exact",
        "num_cayley_neumann_terms": terms,
    }
    stated: dict[str, Array] = {}
    if writer == "peft old series":
        stated["series"] = np.array([1.0] + [2.0] * (terms - 1))
    elif writer == "peft series":
        config["peft_version"] = "0.21.2"
        stated["series"] = np.array([1.0] + [2.0] * max(terms - 2, 2) + [1.0])
    if random.random() < 0.4:
        config |= {"coft": True, "eps": 0.3}
        stated["limit"] = np.array(0.3)
    return config, stated

"""Writes random LoRA files of every method, with the tensors that they hold."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from model.files.lora.targets import LoraTarget
from tests.support.lora_reference import Array, changed_weight

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
STRENGTHS = (0.0, 1.0, -1.0, 0.7, -0.35, 1.8, 4.0)
ENDS = {
    "up": ("lora_up.weight", "lora_B.weight", "lora.up.weight", "lora_B"),
    "down": ("lora_down.weight", "lora_A.weight", "lora.down.weight", "lora_A"),
    "embedding_a": ("lora_embedding_A",),
    "embedding_b": ("lora_embedding_B",),
    "magnitude": ("lora_magnitude_vector",),
    "ia3": ("weight",),
}
"""The endings of keys that are not the role's own name."""

_LOKR = ((0, 0), (1, 0), (0, 1), (1, 1))


@dataclass(frozen=True)
class RandomChange:
    """A change of one weight or bias.

    `tensors` hold the stored numbers in float64, and what is stated of rotations, or of the rank of
    whole factors, beside them.
    """

    target: LoraTarget
    method: str
    tensors: dict[str, Array]
    alpha: float | None
    rank: int

    def result(self, value: Array, strength: float) -> Array:
        """The changed value, computed by the reference."""
        return changed_weight(
            self.method, value, self.tensors, alpha=self.alpha, rank=self.rank, strength=strength
        )


@dataclass(frozen=True)
class RandomLora:
    """A written file, the strength to apply it with, and its changes."""

    path: Path
    strength: float
    changes: list[RandomChange]


class LoraMaker:
    """Draws LoRA files from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._dtype = DTYPES[self._random.integers(len(DTYPES))]
        self.rank = int(self._random.integers(1, 5))
        self._has_metadata = self._random.random() < 0.25
        self._stores_alpha = not self._has_metadata or self._random.random() < 0.3

    def draw(self, path: Path, targets: list[LoraTarget]) -> RandomLora:
        """Write a file that changes a few of the targets."""
        order = self._random.permutation(len(targets))[: self._random.integers(2, 6)]
        stated, metadata = self._statement()
        chosen = [targets[index] for index in order]
        if self._random.random() < 0.15:  # embeddings are rare among the modules
            chosen += [t for t in targets if fits("embedding", t) and t not in chosen][:1]
        changes: list[RandomChange] = []
        tensors: dict[str, torch.Tensor] = {}
        for target in chosen:
            for change in self._changes(target, stated):
                changes.append(change)
                tensors |= self._stored(change)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata=metadata)
        return RandomLora(path, float(self._random.choice(STRENGTHS)), changes)

    def _statement(self) -> tuple[float | None, dict[str, str] | None]:
        """An alpha that the metadata says, and the metadata. It may also be stored."""
        if not self._has_metadata:
            return None, None
        alpha = float(self._random.integers(1, 17))
        if self._stores_alpha:
            return alpha, {"ss_network_alpha": f"{alpha}", "ss_network_dim": f"{self.rank}"}
        if self._random.random() < 0.5:
            return alpha, {"lora_alpha": f"{alpha}", "rank": f"{self.rank}"}
        config = {"r": self.rank, "lora_alpha": alpha, "use_rslora": True}
        return alpha * self.rank**0.5, {"lora_adapter_metadata": json.dumps(config)}

    def _changes(self, target: LoraTarget, stated: float | None) -> list[RandomChange]:
        found = []
        if len(target.shape) == 1:
            method = str(self._random.choice(["diff", "norm"]))
            role = "w_norm" if method == "norm" else "diff"
            found.append(self._change(target, method, {role: self._numbers(*target.shape)}, None))
        else:
            names = [name for name in MATRIX_METHODS if fits(name, target)]
            name = str(self._random.choice(names))
            tensors = MATRIX_METHODS[name](self, *target.shape)
            method = name.partition(" ")[0]
            if method in ("lora", "loha", "lokr") and self._random.random() < 0.4:
                tensors |= self._scale(method, *target.shape)
            if stated is not None and {"lokr_w1", "lokr_w2"} <= tensors.keys():
                tensors["rank"] = np.array(float(self.rank))
            found.append(self._change(target, method, tensors, stated))
        if target.bias and self._random.random() < 0.7:
            found.append(self._change(target, "bias", {"diff_b": self._numbers(target.bias)}, None))
        return found

    def _change(
        self, target: LoraTarget, method: str, tensors: dict[str, Array], stated: float | None
    ) -> RandomChange:
        alpha = None
        if method in ("oft", "boft"):
            alpha = (
                float(self._random.choice([0.0, 2.0**-6])) if self._random.random() < 0.5 else None
            )
        elif method in ("lora", "loha", "lokr", "embedding", "glora"):
            alpha = stated
            if stated is None and self._random.random() < 0.7:
                alpha = float(self._random.choice([0.5, 1.0, 3.0, 8.0, -2.0]))
        return RandomChange(target, method, tensors, alpha, self.rank)

    def _stored(self, change: RandomChange) -> dict[str, torch.Tensor]:
        """The tensors under their keys; some matrices as those of 1x1 convolutions."""
        style = int(self._random.integers(4))
        flat = change.target.original.replace(".", "_")
        stem = {
            "transformer": (f"diffusion_model.{change.target.original}", f"lora_unet_{flat}"),
            "adapter": (f"diffusion_model.{change.target.original}", f"lora_unet_{flat}"),
            "text_encoder": (f"text_encoder.{change.target.module}", f"lora_te_{flat}"),
        }[change.target.part][int(self._random.integers(2))]
        is_convolution = self._random.random() < 0.3
        is_old_glora = change.method == "glora" and self._random.random() < 0.4
        stored = {}
        for role, values in change.tensors.items():
            if role == "rank":
                continue
            ends = ENDS.get(role, (role,))
            tensor = torch.from_numpy(np.asarray(values)).to(self._dtype)
            if role == "on_input":
                tensor = torch.tensor(int(values))
            elif is_convolution and values.ndim == 2 and role != "oft_blocks":
                tensor = tensor[:, :, None, None]
            if is_old_glora:  # older versions of LyCORIS exchange the names of each pair
                role = role[0] + {"1": "2", "2": "1"}[role[1]]
            end = f"{role}.weight" if role in ("a1", "a2", "b1", "b2") else ends[style % len(ends)]
            stored[f"{stem}.{end}"] = tensor.contiguous()
        if change.alpha is not None and (self._stores_alpha or change.method in ("oft", "boft")):
            stored[f"{stem}.alpha"] = torch.tensor(change.alpha)
        return stored

    def _numbers(self, *shape: int, mean: float = 0.0) -> Array:
        """Random numbers that the file's type holds exactly."""
        drawn = torch.from_numpy(self._random.normal(mean, 0.3, shape)).to(self._dtype)
        return drawn.double().numpy()

    def _scale(self, method: str, rows: int, columns: int) -> dict[str, Array]:
        """A scale of DoRA for rows or columns."""
        if method == "lora" and self._random.random() < 0.3:
            return {"magnitude": self._numbers(rows, mean=1.0)}
        shape = [(rows, 1), (rows,), (1, columns)][int(self._random.integers(3))]
        return {"dora_scale": self._numbers(*shape, mean=1.0)}

    def _divisor(self, number: int) -> int:
        return int(self._random.choice([d for d in range(1, number + 1) if number % d == 0]))

    # -- methods for matrices; each returns the tensors by role -----------------------------

    def lora(self, rows: int, columns: int) -> dict[str, Array]:
        return {
            "up": self._numbers(rows, self.rank),
            "down": self._numbers(self.rank, columns),
        }

    def embedding(self, rows: int, columns: int) -> dict[str, Array]:
        return {
            "embedding_a": self._numbers(self.rank, rows),
            "embedding_b": self._numbers(columns, self.rank),
        }

    def loha(self, rows: int, columns: int) -> dict[str, Array]:
        found = {}
        for name in ("hada_w1", "hada_w2"):
            found[f"{name}_a"] = self._numbers(rows, self.rank)
            found[f"{name}_b"] = self._numbers(self.rank, columns)
        return found

    def lokr(self, rows: int, columns: int) -> dict[str, Array]:
        p, q = self._divisor(rows), self._divisor(columns)
        shapes = {"lokr_w1": (p, q), "lokr_w2": (rows // p, columns // q)}
        found = {}
        splits = _LOKR[int(self._random.integers(len(_LOKR)))]
        for (name, (left, right)), is_split in zip(shapes.items(), splits, strict=True):
            if is_split:
                found[f"{name}_a"] = self._numbers(left, self.rank)
                found[f"{name}_b"] = self._numbers(self.rank, right)
            else:
                found[name] = self._numbers(left, right)
        return found

    def diff(self, rows: int, columns: int) -> dict[str, Array]:
        return {"diff": self._numbers(rows, columns)}

    def oft(self, rows: int, columns: int) -> dict[str, Array]:
        size = self._divisor(rows)
        return self._with_rescale(rows, self._numbers(rows // size, size, size))

    def boft(self, rows: int, columns: int) -> dict[str, Array]:
        sizes = [d for d in range(2, rows + 1, 2) if rows % d == 0]
        size = int(self._random.choice(sizes))
        most = 1
        while rows % (2**most * size) == 0:
            most += 1
        factors = int(self._random.integers(1, most + 1))
        return self._with_rescale(rows, self._numbers(factors, rows // size, size, size))

    def _with_rescale(self, rows: int, blocks: Array) -> dict[str, Array]:
        found = {"oft_blocks": blocks}
        if self._random.random() < 0.5:
            found["rescale"] = self._numbers(rows, 1, mean=1.0)
        return found

    def glora(self, rows: int, columns: int) -> dict[str, Array]:
        return {
            "a1": self._numbers(columns, self.rank),
            "a2": self._numbers(self.rank, columns),
            "b1": self._numbers(rows, self.rank),
            "b2": self._numbers(self.rank, columns),
        }

    def ia3(self, rows: int, columns: int) -> dict[str, Array]:
        is_on_input = bool(self._random.integers(2))
        return {
            "ia3": self._numbers(columns if is_on_input else rows),
            "on_input": np.array(float(is_on_input)),
        }

    def peft_ia3(self, rows: int, columns: int) -> dict[str, Array]:
        shape = (rows, 1) if self._random.random() < 0.5 else (1, columns)
        return {"ia3_l": self._numbers(*shape, mean=1.0)}


MATRIX_METHODS: Mapping[str, Callable[[LoraMaker, int, int], dict[str, Array]]] = {
    "lora": LoraMaker.lora,
    "loha": LoraMaker.loha,
    "lokr": LoraMaker.lokr,
    "embedding": LoraMaker.embedding,
    "diff": LoraMaker.diff,
    "oft": LoraMaker.oft,
    "boft": LoraMaker.boft,
    "glora": LoraMaker.glora,
    "ia3": LoraMaker.ia3,
    "peft_ia3": LoraMaker.peft_ia3,
}


def fits(method: str, target: LoraTarget) -> bool:
    """Whether the method can change this matrix in a file."""
    if method == "boft":
        return target.shape[0] % 2 == 0
    return method != "embedding" or target.module.endswith(("embed", "embed_tokens"))

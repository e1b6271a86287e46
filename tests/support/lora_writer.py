"""Writes LoRA files of every layout and method for a small model, with the expected weights.

The expected weights are computed here in float64, entry by entry, without the service's formulas.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.files.keymap import adapter_to_original, transformer_to_original
from model.network.load import Components
from model.resolved_request import ResolvedLora
from tests.support.random_checkpoint import RandomModels

Made = tuple[dict[str, Tensor], Tensor, str]
"""A method's tensors by the ending of their key, the change in float64, and how it is applied."""

RANK = 3


@dataclass(frozen=True)
class Place:
    """A linear layer of the model: its part, its name in the library and in the files."""

    part: str
    library: str
    original: str
    shape: tuple[int, int]


def places(made: RandomModels | Components) -> list[Place]:
    """Every linear layer that a LoRA may change. The patch embedding is as wide as in the file."""
    found = []
    for part, module, to_original in (
        ("transformer", made.transformer, transformer_to_original),
        ("adapter", made.conditioner, adapter_to_original),
        ("text_encoder", made.text_encoder, str),
    ):
        for name, weight in module.named_parameters():
            if weight.ndim == 2 and not name.startswith("embed"):
                original = to_original(name).removesuffix(".weight")
                rows, columns = weight.shape
                place = name.removesuffix(".weight")
                found.append(Place(part, place, original, (rows, columns)))
    return found


def linear(made: RandomModels, place: Place) -> nn.Linear:
    """The layer at a place."""
    module: nn.Module = {
        "transformer": made.transformer,
        "adapter": made.conditioner,
        "text_encoder": made.text_encoder,
    }[place.part]
    layer = module.get_submodule(place.library)
    assert isinstance(layer, nn.Linear)
    return layer


# -- names in files --------------------------------------------------------------------------


def flat(name: str) -> str:
    return name.replace(".", "_")


def _comfy(place: Place) -> str:
    if place.part == "text_encoder":
        return f"text_encoders.qwen3_06b.transformer.model.{place.original}"
    return f"diffusion_model.{place.original}"


def _kohya(place: Place) -> str:
    prefix = "lora_te_" if place.part == "text_encoder" else "lora_unet_"
    return prefix + flat(place.original)


def _kohya_te1(place: Place) -> str:
    return _kohya(place).replace("lora_te_", "lora_te1_")


def _diffusers(place: Place) -> str:
    prefix = {"transformer": "transformer", "adapter": "text_conditioner"}
    return f"{prefix.get(place.part, place.part)}.{place.library}"


def _peft(place: Place) -> str:
    """The names of peft for a wrapped original network; it has none for the text encoder."""
    if place.part == "text_encoder":
        return f"base_model.model.text_encoder.{place.library}"
    return f"base_model.model.{place.original}"


def _lycoris(place: Place) -> str:
    if place.part == "text_encoder":
        return f"lora_te1_{flat(place.original)}"
    return f"lycoris_{flat(place.library if place.part == 'transformer' else place.original)}"


LAYOUTS: dict[str, Callable[[Place], str]] = {
    "comfy": _comfy,
    "kohya": _kohya,
    "kohya_te1": _kohya_te1,
    "diffusers": _diffusers,
    "peft": _peft,
    "lycoris": _lycoris,
    "net": lambda place: _comfy(place).replace("diffusion_model.", "net.", 1),
}


# -- methods -----------------------------------------------------------------------------------


def random(*shape: int, like: torch.dtype = torch.float32) -> Tensor:
    """Values that are exact in `like`."""
    return (0.3 * torch.randn(shape)).to(like)


def product(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product, summed over the rank in float64."""
    return torch.stack(
        [torch.outer(left[:, r].double(), right[r].double()) for r in range(left.shape[1])]
    ).sum(0)


def kronecker(left: Tensor, right: Tensor) -> Tensor:
    """Every entry of `left` times all of `right`, block by block."""
    rows = [torch.cat([entry * right for entry in row], dim=1) for row in left.double()]
    return torch.cat(rows, dim=0)


def divisor(number: int) -> int:
    """The smallest divisor above 1."""
    return next(d for d in range(2, number + 1) if number % d == 0)


def lora(
    out: int, into: int, *, alpha: float | None, ends: tuple[str, str], dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor]:
    up, down = random(out, RANK, like=dtype), random(RANK, into, like=dtype)
    tensors = {ends[0]: down, ends[1]: up}
    delta = product(up, down)
    if alpha is None:
        return tensors, delta
    return {**tensors, "alpha": torch.tensor(alpha, dtype=dtype)}, delta * (alpha / RANK)


AB = ("lora_A.weight", "lora_B.weight")
DOWN_UP = ("lora_down.weight", "lora_up.weight")


def _lora_method(
    alpha: float | None, ends: tuple[str, str], dtype: torch.dtype = torch.float32
) -> Callable[[int, int], Made]:
    def make(out: int, into: int) -> Made:
        return *lora(out, into, alpha=alpha, ends=ends, dtype=dtype), "add"

    return make


def _dora(kind: str) -> Callable[[int, int], Made]:
    def make(out: int, into: int) -> Made:
        tensors, delta = lora(out, into, alpha=1.5, ends=DOWN_UP, dtype=torch.float32)
        shape = {"rows": (out, 1), "flat_rows": (out,), "columns": (1, into), "peft": (out,)}[kind]
        scale = 0.5 + torch.rand(shape)
        end = "lora_magnitude_vector" if kind == "peft" else "dora_scale"
        return {**tensors, end: scale}, delta, kind

    return make


def _lokr(kind: str) -> Callable[[int, int], Made]:
    """`kind` names the split factors: none, w1, w2 or both. There is always an alpha."""

    def make(out: int, into: int) -> Made:
        alpha, a, b = 2.0, divisor(out), divisor(into)
        shapes = {"w1": (a, b), "w2": (out // a, into // b)}
        tensors: dict[str, Tensor] = {}
        factors = []
        for name, (rows, columns) in shapes.items():
            if kind in (name, "both"):
                left, right = random(rows, RANK), random(RANK, columns)
                tensors |= {f"lokr_{name}_a": left, f"lokr_{name}_b": right}
                factors.append(product(left, right))
            else:
                tensors[f"lokr_{name}"] = random(rows, columns)
                factors.append(tensors[f"lokr_{name}"].double())
        scale = 1.0 if kind == "none" else alpha / RANK
        tensors["alpha"] = torch.tensor(alpha)
        return tensors, scale * kronecker(*factors), "add"

    return make


def _loha(out: int, into: int) -> Made:
    tensors: dict[str, Tensor] = {}
    for name in ("hada_w1", "hada_w2"):
        tensors |= {f"{name}_a": random(out, RANK), f"{name}_b": random(RANK, into)}
    tensors["alpha"] = torch.tensor(1.0)
    first = product(tensors["hada_w1_a"], tensors["hada_w1_b"])
    second = product(tensors["hada_w2_a"], tensors["hada_w2_b"])
    return tensors, first * second / RANK, "add"


METHODS: dict[str, Callable[[int, int], Made]] = {
    "lora_A_B": _lora_method(None, AB),
    "lora_A_B_alpha": _lora_method(6.0, AB),
    "lora_A_B_default": _lora_method(None, ("lora_A.default.weight", "lora_B.default.weight")),
    "lora_down_up": _lora_method(None, DOWN_UP),
    "lora_down_up_alpha": _lora_method(0.75, DOWN_UP),
    "lora_old_diffusers": _lora_method(None, ("lora.down.weight", "lora.up.weight")),
    "lora_fp16": _lora_method(1.5, DOWN_UP, torch.float16),
    "lora_bf16": _lora_method(1.5, AB, torch.bfloat16),
    "lokr_whole": _lokr("none"),
    "lokr_w1_split": _lokr("w1"),
    "lokr_w2_split": _lokr("w2"),
    "lokr_both_split": _lokr("both"),
    "loha": _loha,
    "dora_rows": _dora("rows"),
    "dora_flat_rows": _dora("flat_rows"),
    "dora_columns": _dora("columns"),
    "dora_peft": _dora("peft"),
}


def changed(weight: Tensor, made: Made, *, strength: float) -> Tensor:
    """The weight in float64 after the change."""
    tensors, delta, kind = made
    weight = weight.double()
    if kind == "add":
        return weight + strength * delta
    whole = weight + delta
    axis = 0 if kind == "columns" else 1
    norms = whole.square().sum(axis, keepdim=True).sqrt()
    scale = tensors["lora_magnitude_vector" if kind == "peft" else "dora_scale"].double()
    goal = whole / norms * (scale if kind == "columns" else scale.view(-1, 1))
    return weight + strength * (goal - weight)


@dataclass(frozen=True)
class Written:
    """A LoRA file and its change of each place."""

    path: Path
    changes: dict[Place, Made]

    @property
    def name(self) -> str:
        return self.path.stem


def write_lora(
    path: Path,
    at: Iterable[Place],
    *,
    layout: str = "kohya",
    method: str = "lora_down_up_alpha",
    seed: int = 0,
) -> Written:
    """Write a file that changes all of the places."""
    torch.manual_seed(seed)
    changes = {place: METHODS[method](*place.shape) for place in at}
    tensors = {
        f"{LAYOUTS[layout](place)}.{end}": tensor.contiguous()
        for place, made in changes.items()
        for end, tensor in made[0].items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return Written(path, changes)


def some_places(made: RandomModels) -> list[Place]:
    """One layer of every type, in every part."""
    wanted = {
        ("transformer", "patch_embed.proj"),
        ("transformer", "time_embed.t_embedder.linear_2"),
        ("transformer", "transformer_blocks.0.attn1.to_q"),
        ("transformer", "transformer_blocks.1.attn1.to_out.0"),
        ("transformer", "transformer_blocks.1.attn2.to_k"),
        ("transformer", "transformer_blocks.0.ff.net.0.proj"),
        ("transformer", "transformer_blocks.1.ff.net.2"),
        ("transformer", "transformer_blocks.1.norm2.linear_1"),
        ("transformer", "transformer_blocks.0.norm3.linear_2"),
        ("transformer", "norm_out.linear_1"),
        ("transformer", "proj_out"),
        ("adapter", "blocks.1.cross_attn.o_proj"),
        ("adapter", "blocks.0.mlp.2"),
        ("adapter", "out_proj"),
        ("text_encoder", "layers.0.self_attn.k_proj"),
        ("text_encoder", "layers.1.mlp.down_proj"),
    }
    found = [place for place in places(made) if (place.part, place.library) in wanted]
    assert len(found) == len(wanted)
    return found


def resolved(written: Written, weight: float = 1.0) -> ResolvedLora:
    """The LoRA as a request names it."""
    sha256 = hashlib.sha256(written.path.read_bytes()).hexdigest()
    return ResolvedLora(name=written.name, weight=weight, sha256=sha256)

"""Opens a checkpoint's weight files and returns ready modules.

What tensors can tell is read from their shapes, the rest from the card. Every name and shape of
every file is checked before the first weight is copied. Refuses pickles and quantised weights.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from model.card import (
    Card,
    TextArchitecture,
    TransformerArchitecture,
    VaeArchitecture,
    WeightFile,
    shipped_folder,
)
from model.errors import CheckpointError
from model.keymap import (
    ADAPTER_PREFIX,
    TEXT_ENCODER_PREFIX,
    TRANSFORMER_PREFIXES,
    adapter_to_original,
    is_ignored,
    text_encoder_to_original,
    transformer_to_original,
    vae_to_original,
)
from model.tokens import load_qwen_tokenizer, load_t5_tokenizer
from model.vae import to_2d

MAX_SIDE = 4096
"""Pixels; the library's positions end at 2048 unless told otherwise."""

_PATCH = 2
_VAE_SCALE = 8
_DTYPES = frozenset({"F32", "BF16", "F16"})
_QUANTISED = re.compile(
    r"scale_weight$|weight_scale|scaled_fp8|comfy_quant|quant_(state|map)|absmax"
)

Shapes = Mapping[str, tuple[int, ...]]
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Components:
    """A loaded checkpoint, frozen and in evaluation mode.

    The text path and the VAE are float32, which costs little; the transformer has the dtype that
    was asked for. `vae` has no encoder unless that was asked for. `sha256` is the transformer
    file's.
    """

    text_encoder: Qwen3Model
    conditioner: AnimaTextConditioner
    transformer: CosmosTransformer3DModel
    vae: AutoencoderKLQwenImage
    qwen: Tokenizer
    t5: Tokenizer
    sha256: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """A module without weights, and the file's name of each of its parameters."""

    module: Any
    path: Path
    names: dict[str, str]


def load_components(
    card: Card,
    checkpoint_dir: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    has_vae_encoder: bool = False,
) -> Components:
    """Load the checkpoint that `card` describes from `checkpoint_dir`.

    None means the folder that ships with the package. `dtype` is the transformer's.

    Raises:
        CheckpointError: a file is missing, truncated, pickled or quantised, its checksum is not
            the card's, or a key is missing, unknown or of another shape; names file and key.
    """
    folder = checkpoint_dir or shipped_folder(card)
    files = card.files
    qwen = load_qwen_tokenizer(folder / files.qwen_tokenizer)
    t5 = load_t5_tokenizer(folder / files.t5_tokenizer)
    main = folder / files.transformer.path
    conditioner = _plan_conditioner(main, card.text)
    transformer = _plan_transformer(main, card.transformer)
    text_encoder = _plan_text_encoder(folder / files.text_encoder.path, card.text)
    vae = _plan_vae(folder / files.vae.path, card.vae, z_dim=card.transformer.latent_channels)
    _require_fit(transformer, conditioner, text_encoder)
    _require_vocabulary(qwen, text_encoder.module.config.vocab_size, path=text_encoder.path)
    _require_vocabulary(t5, conditioner.module.config.target_vocab_size, path=main)
    sha256 = _checked_sha256(folder, files.transformer)
    for other in (files.text_encoder, files.vae):
        if other.sha256:
            _checked_sha256(folder, other)
    if not has_vae_encoder:
        vae = _without_encoder(vae)
    loaded_vae = _fill(vae, device, torch.float32)
    to_2d(loaded_vae)
    return Components(
        text_encoder=_fill(text_encoder, device, torch.float32),
        conditioner=_fill(conditioner, device, torch.float32),
        transformer=_fill(transformer, device, dtype),
        vae=loaded_vae,
        qwen=qwen,
        t5=t5,
        sha256=sha256,
    )


# -- planning: modules without weights, and the checks -----------------------------------------


def _plan_transformer(path: Path, architecture: TransformerArchitecture) -> _Plan:
    prefix, shapes = _transformer_shapes(path)
    shapes = {name: s for name, s in shapes.items() if not name.startswith(ADAPTER_PREFIX)}
    with _needs(path):
        hidden, columns = shapes["x_embedder.proj.1.weight"]
        (head_dim,) = shapes["blocks.0.self_attn.q_norm.weight"]
        mlp, _ = shapes["blocks.0.mlp.layer1.weight"]
        config = {
            "in_channels": architecture.latent_channels,
            "out_channels": shapes["final_layer.linear.weight"][0] // _PATCH**2,
            "num_attention_heads": hidden // head_dim,
            "attention_head_dim": head_dim,
            "num_layers": _count(shapes, "blocks"),
            "mlp_ratio": _ratio(mlp, hidden),
            "text_embed_dim": shapes["blocks.0.cross_attn.k_proj.weight"][1],
            "adaln_lora_dim": shapes["blocks.0.adaln_modulation_self_attn.1.weight"][0],
            "max_size": (1, MAX_SIDE // _VAE_SCALE, MAX_SIDE // _VAE_SCALE),
            "patch_size": (1, _PATCH, _PATCH),
            "rope_scale": architecture.rope_scale,
            # The published network has a 17th channel, a padding mask that is always zero. Its
            # patch columns, the last ones, are left out: the same numbers without torchvision.
            "concat_padding_mask": False,
            "extra_pos_embed_type": None,
        }
        module = _meta(lambda: CosmosTransformer3DModel(**config))
    wide = (hidden, _PATCH**2 * (architecture.latent_channels + 1))
    if (hidden, columns) == wide:
        shapes["x_embedder.proj.1.weight"] = (hidden, columns - _PATCH**2)
    return _checked(module, path, shapes, prefix=prefix, to_original=transformer_to_original)


def _plan_conditioner(path: Path, architecture: TextArchitecture) -> _Plan:
    prefix, shapes = _transformer_shapes(path)
    shapes = {name: s for name, s in shapes.items() if name.startswith(ADAPTER_PREFIX)}
    with _needs(path):
        vocabulary, target = shapes["llm_adapter.embed.weight"]
        width, source = shapes["llm_adapter.blocks.0.cross_attn.k_proj.weight"]
        (head_dim,) = shapes["llm_adapter.blocks.0.cross_attn.q_norm.weight"]
        config = {
            "source_dim": source,
            "target_dim": target,
            "model_dim": width,
            "num_layers": _count(shapes, "llm_adapter.blocks"),
            "num_attention_heads": width // head_dim,
            "mlp_ratio": _ratio(shapes["llm_adapter.blocks.0.mlp.0.weight"][0], width),
            "target_vocab_size": vocabulary,
            "min_sequence_length": architecture.context_rows,
        }
        module = _meta(lambda: AnimaTextConditioner(**config))
    module.rotary_emb = type(module.rotary_emb)(head_dim)
    return _checked(module, path, shapes, prefix=prefix, to_original=adapter_to_original)


def _plan_text_encoder(path: Path, architecture: TextArchitecture) -> _Plan:
    shapes = _shapes(path)
    shapes.pop("lm_head.weight", None)  # tied to the embedding; nothing here predicts words
    is_prefixed = any(name.startswith(TEXT_ENCODER_PREFIX) for name in shapes)
    prefix = TEXT_ENCODER_PREFIX if is_prefixed else ""
    with _needs(path):
        vocabulary, hidden = shapes[f"{prefix}embed_tokens.weight"]
        first = f"{prefix}layers.0."
        (head_dim,) = shapes[f"{first}self_attn.q_norm.weight"]
        config = Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=shapes[f"{first}mlp.gate_proj.weight"][0],
            num_hidden_layers=_count(shapes, f"{prefix}layers"),
            num_attention_heads=shapes[f"{first}self_attn.q_proj.weight"][0] // head_dim,
            num_key_value_heads=shapes[f"{first}self_attn.k_proj.weight"][0] // head_dim,
            head_dim=head_dim,
            rms_norm_eps=architecture.qwen_rms_norm_eps,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": architecture.qwen_rope_theta,
            },
        )
        module = _meta(lambda: Qwen3Model(config))
    module.rotary_emb = type(module.rotary_emb)(config)
    to_original = text_encoder_to_original if is_prefixed else str
    return _checked(module, path, shapes, prefix="", to_original=to_original)


def _plan_vae(path: Path, architecture: VaeArchitecture, *, z_dim: int) -> _Plan:
    shapes = _shapes(path)
    module = _meta(
        lambda: AutoencoderKLQwenImage(
            base_dim=architecture.base_dim,
            z_dim=z_dim,
            dim_mult=list(architecture.dim_mult),
            num_res_blocks=architecture.num_res_blocks,
            temperal_downsample=list(architecture.temperal_downsample),
            latents_mean=list(architecture.latents_mean),
            latents_std=list(architecture.latents_std),
        )
    )
    if "decoder.conv_in.weight" in shapes:
        return _checked(module, path, shapes, prefix="", to_original=str)
    blocks = architecture.num_res_blocks
    return _checked(
        module, path, shapes, prefix="", to_original=lambda name: vae_to_original(name, blocks)
    )


def _without_encoder(plan: _Plan) -> _Plan:
    del plan.module.encoder, plan.module.quant_conv
    names = {name: key for name, key in plan.names.items() if name in plan.module.state_dict()}
    return _Plan(plan.module, plan.path, names)


def _meta(build: Callable[[], _Module]) -> _Module:
    """Build a module without memory for its weights.

    Its rotary tables, which no file holds, are as empty as the weights: build those anew.
    """
    with torch.device("meta"):
        return build()


def _checked(
    module: nn.Module,
    path: Path,
    shapes: Shapes,
    *,
    prefix: str,
    to_original: Callable[[str], str],
) -> _Plan:
    names = {name: to_original(name) for name in module.state_dict()}
    missing = sorted(set(names.values()) - set(shapes))
    unknown = sorted(set(shapes) - set(names.values()))
    for problem, keys in (("lacks", missing), ("has unknown", unknown)):
        if keys:
            raise CheckpointError(f"{path} {problem} {_few(keys, prefix)}")
    for name, weight in module.state_dict().items():
        if tuple(weight.shape) != shapes[names[name]]:
            raise CheckpointError(
                f"{path}: {prefix}{names[name]} has shape {shapes[names[name]]}, "
                f"but the other weights need {tuple(weight.shape)}"
            )
    return _Plan(module, path, {name: prefix + original for name, original in names.items()})


def _few(keys: list[str], prefix: str) -> str:
    shown = ", ".join(prefix + key for key in keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more keys"


@contextmanager
def _needs(path: Path) -> Iterator[None]:
    """Turn what goes wrong while sizes are read from shapes into a CheckpointError."""
    try:
        yield
    except KeyError as exc:
        raise CheckpointError(f"{path} lacks {exc.args[0]}; is it another kind of model?") from exc
    except (ValueError, IndexError, ZeroDivisionError) as exc:
        raise CheckpointError(f"{path}: shapes of another architecture: {exc}") from exc


def _require_fit(transformer: _Plan, conditioner: _Plan, text_encoder: _Plan) -> None:
    network, adapter = transformer.module.config, conditioner.module.config
    qwen = text_encoder.module.config
    for what, mine, theirs, other in (
        ("text width", network.text_embed_dim, adapter.target_dim, "its adapter"),
        ("Qwen3 width", adapter.source_dim, qwen.hidden_size, text_encoder.path),
    ):
        if mine != theirs:
            raise CheckpointError(f"{transformer.path} has {what} {mine}; {other} has {theirs}")


def _require_vocabulary(tokenizer: Tokenizer, rows: int, *, path: Path) -> None:
    words = tokenizer.get_vocab_size(with_added_tokens=False)
    if words > rows:
        raise CheckpointError(f"{path} embeds {rows} tokens; its tokenizer knows {words}")


# -- reading files -----------------------------------------------------------------------------


def _transformer_shapes(path: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the prefix of a single file's names, and the shapes by name without it."""
    shapes = _shapes(path)
    prefix = next(p for p in TRANSFORMER_PREFIXES if any(name.startswith(p) for name in shapes))
    stray = sorted(name for name in shapes if not name.startswith(prefix))
    if stray:
        raise CheckpointError(f"{path} has unknown {_few(stray, '')} beside {prefix}*")
    return prefix, {name.removeprefix(prefix): shape for name, shape in shapes.items()}


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    shapes = {}
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - no mapping, although it looks like one
            if is_ignored(name):
                continue
            view = file.get_slice(name)
            if _QUANTISED.search(name) or view.get_dtype() not in _DTYPES:
                raise CheckpointError(
                    f"{path}: {name} ({view.get_dtype()}) belongs to a quantised checkpoint; "
                    "weights must be float32, bfloat16 or float16"
                )
            shapes[name] = tuple(view.get_shape())
    if not shapes:
        raise CheckpointError(f"{path} holds no weights")
    return shapes


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} is no .safetensors file; pickled checkpoints can run code and are refused"
        )
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as exc:
        raise CheckpointError(f"{path} is truncated or no safetensors file: {exc}") from exc


def _checked_sha256(folder: Path, weights: WeightFile) -> str:
    with (folder / weights.path).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if weights.sha256 and found != weights.sha256:
        raise CheckpointError(
            f"{folder / weights.path} has sha256 {found}; the card says {weights.sha256}"
        )
    return found


def _fill(plan: _Plan, device: torch.device, dtype: torch.dtype) -> Any:
    """Give the planned module its weights, straight from the mapped file to where they stay."""
    module = plan.module
    wanted = {name: weight.shape for name, weight in module.state_dict().items()}
    with _opened(plan.path) as file:
        weights: dict[str, Tensor] = {
            # Slicing drops the padding mask's patch columns and is nothing elsewhere. A copy,
            # because the file may be replaced while the module lives.
            name: file.get_tensor(key)[tuple(map(slice, wanted[name]))].to(device, dtype, copy=True)
            for name, key in plan.names.items()
        }
    module.load_state_dict(weights, strict=True, assign=True)
    module.to(device).requires_grad_(requires_grad=False).eval()
    return module


def _count(shapes: Shapes, group: str) -> int:
    pattern = re.compile(rf"^{re.escape(group)}\.(\d+)\.")
    return 1 + max(int(match[1]) for name in shapes if (match := pattern.match(name)))


def _ratio(inner: int, outer: int) -> float:
    """The ratio from which the libraries get `inner` back as int(outer * ratio)."""
    ratio = inner / outer
    return ratio if int(outer * ratio) == inner else math.nextafter(ratio, math.inf)

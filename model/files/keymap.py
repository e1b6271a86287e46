"""Maps the names of weights between the published files and the libraries' modules.

The published files are those of the Cosmos-Predict2 transformer, its text adapter, Qwen3 and the
Wan 2.1 autoencoder. Names of the transformer's file are without its prefix.
"""

import re
from functools import cache

TRANSFORMER_PREFIX = "net."
"""The prefix of every transformer and adapter name in official files."""

TRANSFORMER_PREFIXES = (
    TRANSFORMER_PREFIX, "model.diffusion_model.", "diffusion_model.", "state_dict.net.",
    "model.net.", "net.net.", "pipe.dit.", "dit.", "",
)  # fmt: skip
"""All known prefixes. One of them applies to a whole file; longer matches come first."""

ADAPTER_PREFIX = "llm_adapter."
TEXT_ENCODER_PREFIX = "model."

BUNDLE_PREFIXES = {
    "text_encoder": (
        "text_encoders.qwen3_06b.transformer.",
        "cond_stage_model.qwen3_06b.transformer.",
        "cond_stage_model.transformer.",
        "cond_stage_model.",
    ),
    "vae": ("vae.", "first_stage_model."),
}
"""The prefixes of the other parts in a file that holds all parts; the first that occurs applies."""

_BLOCK_INDEX = re.compile(r"(?<=blocks\.)\d+")

_ATTENTION = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "output_proj": "to_out.0"} | {
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}

_TRANSFORMER_MODULES = (
    {
        "x_embedder.proj.1": "patch_embed.proj",
        "t_embedder.1.linear_1": "time_embed.t_embedder.linear_1",
        "t_embedder.1.linear_2": "time_embed.t_embedder.linear_2",
        "t_embedding_norm": "time_embed.norm",
        "final_layer.linear": "proj_out",
        "final_layer.adaln_modulation.1": "norm_out.linear_1",
        "final_layer.adaln_modulation.2": "norm_out.linear_2",
        "blocks.#.mlp.layer1": "transformer_blocks.#.ff.net.0.proj",
        "blocks.#.mlp.layer2": "transformer_blocks.#.ff.net.2",
    }
    | {
        f"blocks.#.{theirs}.{projection}": f"transformer_blocks.#.{ours}.{renamed}"
        for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for projection, renamed in _ATTENTION.items()
    }
    | {
        f"blocks.#.adaln_modulation_{branch}.{layer}": f"transformer_blocks.#.{norm}.linear_{layer}"
        for branch, norm in (("self_attn", "norm1"), ("cross_attn", "norm2"), ("mlp", "norm3"))
        for layer in (1, 2)
    }
)
_TRANSFORMER_MODULES_BACK = {ours: theirs for theirs, ours in _TRANSFORMER_MODULES.items()}


def transformer_to_library(name: str) -> str:
    """Return the `CosmosTransformer3DModel` name of an original `name` without its prefix.

    Raises KeyError for a name that the architecture does not have, as all functions here do.
    """
    return _rename(name, _TRANSFORMER_MODULES)


def transformer_to_original(name: str) -> str:
    """Return the original name (no prefix) of a `CosmosTransformer3DModel` parameter."""
    return _rename(name, _TRANSFORMER_MODULES_BACK)


def adapter_to_library(name: str) -> str:
    """Return the `AnimaTextConditioner` name of an original `llm_adapter.` name."""
    return _without_prefix(name, ADAPTER_PREFIX)


def adapter_to_original(name: str) -> str:
    """Return the original name (no file prefix) of an `AnimaTextConditioner` parameter."""
    return ADAPTER_PREFIX + name


def text_encoder_to_library(name: str) -> str:
    """Return the `Qwen3Model` name of a name in the text encoder's file."""
    return _without_prefix(name, TEXT_ENCODER_PREFIX)


def text_encoder_to_original(name: str) -> str:
    """Return the name in the text encoder's file of a `Qwen3Model` parameter."""
    return TEXT_ENCODER_PREFIX + name


def vae_to_library(name: str, num_res_blocks: int) -> str:
    """Return the `AutoencoderKLQwenImage` name of a name in the Wan layout.

    The Wan decoder numbers its up-sampling layers in one flat row, so that the number alone does
    not show the level: it depends on `num_res_blocks` (2 in the published file).
    """
    return _rename(name, _vae_modules(num_res_blocks))


def vae_to_original(name: str, num_res_blocks: int) -> str:
    """Return the Wan-layout name of an `AutoencoderKLQwenImage` parameter."""
    return _rename(name, _vae_modules_back(num_res_blocks))


def _rename(name: str, modules: dict[str, str]) -> str:
    module, _, parameter = name.rpartition(".")
    index = _BLOCK_INDEX.search(module)
    renamed = modules.get(module)
    if renamed is None and index is not None:
        renamed = modules.get(_BLOCK_INDEX.sub("#", module, count=1))
    if renamed is None:
        raise KeyError(name)
    if index is not None:
        renamed = renamed.replace("#", index.group())
    return f"{renamed}.{parameter}"


def _without_prefix(name: str, prefix: str) -> str:
    if not name.startswith(prefix):
        raise KeyError(name)
    return name.removeprefix(prefix)


_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_RESAMPLE = {"resample.1": "resample.1", "time_conv": "time_conv"}
_ATTENTION_2D = {"norm": "norm", "to_qkv": "to_qkv", "proj": "proj"}
_MAX_LEVELS = 8


@cache
def _vae_modules(num_res_blocks: int) -> dict[str, str]:
    places: list[tuple[str, str, dict[str, str]]] = []
    for half in ("encoder", "decoder"):
        places += [
            (f"{half}.middle.0", f"{half}.mid_block.resnets.0", _RESIDUAL),
            (f"{half}.middle.1", f"{half}.mid_block.attentions.0", _ATTENTION_2D),
            (f"{half}.middle.2", f"{half}.mid_block.resnets.1", _RESIDUAL),
        ]
    for flat in range(_MAX_LEVELS * (num_res_blocks + 2)):
        # The encoder is flat in both layouts; a decoder level is res blocks and one up-sampler.
        down = f"encoder.downsamples.{flat}", f"encoder.down_blocks.{flat}"
        places.append((*down, _RESIDUAL | _RESAMPLE))
        level, layer = divmod(flat, num_res_blocks + 2)
        up = f"decoder.upsamples.{flat}"
        if layer <= num_res_blocks:
            places.append((up, f"decoder.up_blocks.{level}.resnets.{layer}", _RESIDUAL))
        else:
            places.append((up, f"decoder.up_blocks.{level}.upsamplers.0", _RESAMPLE))
    modules = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        modules |= {
            f"{half}.conv1": f"{half}.conv_in",
            f"{half}.head.0": f"{half}.norm_out",
            f"{half}.head.2": f"{half}.conv_out",
        }
    return modules | {
        f"{theirs}.{inner}": f"{ours}.{renamed}"
        for theirs, ours, inside in places
        for inner, renamed in inside.items()
    }


@cache
def _vae_modules_back(num_res_blocks: int) -> dict[str, str]:
    return {ours: theirs for theirs, ours in _vae_modules(num_res_blocks).items()}

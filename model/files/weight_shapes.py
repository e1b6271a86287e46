"""Names and shapes of all weights of each part, by the names in the libraries' modules.

They follow from a few sizes. Does not need torch.
"""

from dataclasses import dataclass
from itertools import pairwise

from model.card import VaeArchitecture

PATCH = 2
"""Side in latent pixels of the transformer's patches."""

IMAGE_CHANNELS = 3

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TransformerSizes:
    """Sizes of the transformer. `mlp` is the inner width of its feed-forward layers."""

    latent_channels: int
    heads: int
    head_dim: int
    blocks: int
    mlp: int
    text_width: int
    modulation_rank: int

    @property
    def width(self) -> int:
        """Width of the tokens."""
        return self.heads * self.head_dim


@dataclass(frozen=True, slots=True)
class AdapterSizes:
    """Sizes of the text adapter. It reads `source_width` and writes `target_width`."""

    source_width: int
    target_width: int
    width: int
    heads: int
    blocks: int
    mlp: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class TextEncoderSizes:
    """Sizes of Qwen3."""

    width: int
    heads: int
    key_heads: int
    head_dim: int
    blocks: int
    mlp: int
    vocabulary: int


def transformer_shapes(sizes: TransformerSizes) -> Shapes:
    """Weights of `CosmosTransformer3DModel` without the channel of the padding mask."""
    width, rank = sizes.width, sizes.modulation_rank
    patch = PATCH**2 * sizes.latent_channels
    shapes: Shapes = {
        "patch_embed.proj.weight": (width, patch),
        "time_embed.t_embedder.linear_1.weight": (width, width),
        "time_embed.t_embedder.linear_2.weight": (3 * width, width),
        "time_embed.norm.weight": (width,),
        "norm_out.linear_1.weight": (rank, width),
        "norm_out.linear_2.weight": (2 * width, rank),
        "proj_out.weight": (patch, width),
    }
    for index in range(sizes.blocks):
        block = f"transformer_blocks.{index}"
        for norm in ("norm1", "norm2", "norm3"):
            shapes[f"{block}.{norm}.linear_1.weight"] = (rank, width)
            shapes[f"{block}.{norm}.linear_2.weight"] = (3 * width, rank)
        for attention, source in (("attn1", width), ("attn2", sizes.text_width)):
            shapes |= {
                f"{block}.{attention}.norm_q.weight": (sizes.head_dim,),
                f"{block}.{attention}.norm_k.weight": (sizes.head_dim,),
                f"{block}.{attention}.to_q.weight": (width, width),
                f"{block}.{attention}.to_k.weight": (width, source),
                f"{block}.{attention}.to_v.weight": (width, source),
                f"{block}.{attention}.to_out.0.weight": (width, width),
            }
        shapes[f"{block}.ff.net.0.proj.weight"] = (sizes.mlp, width)
        shapes[f"{block}.ff.net.2.weight"] = (width, sizes.mlp)
    return shapes


def adapter_shapes(sizes: AdapterSizes) -> Shapes:
    """Weights of `AnimaTextConditioner`."""
    width, target = sizes.width, sizes.target_width
    shapes: Shapes = {
        "embed.weight": (sizes.vocabulary, target),
        "out_proj.weight": (target, width),
        "out_proj.bias": (target,),
        "norm.weight": (target,),
    }
    if width != target:
        shapes |= {"in_proj.weight": (width, target), "in_proj.bias": (width,)}
    for index in range(sizes.blocks):
        block = f"blocks.{index}"
        for attention, source in (("self_attn", width), ("cross_attn", sizes.source_width)):
            shapes |= {
                f"{block}.norm_{attention}.weight": (width,),
                f"{block}.{attention}.q_proj.weight": (width, width),
                f"{block}.{attention}.k_proj.weight": (width, source),
                f"{block}.{attention}.v_proj.weight": (width, source),
                f"{block}.{attention}.o_proj.weight": (width, width),
                f"{block}.{attention}.q_norm.weight": (sizes.head_dim,),
                f"{block}.{attention}.k_norm.weight": (sizes.head_dim,),
            }
        shapes |= {
            f"{block}.norm_mlp.weight": (width,),
            f"{block}.mlp.0.weight": (sizes.mlp, width),
            f"{block}.mlp.0.bias": (sizes.mlp,),
            f"{block}.mlp.2.weight": (width, sizes.mlp),
            f"{block}.mlp.2.bias": (width,),
        }
    return shapes


def text_encoder_shapes(sizes: TextEncoderSizes) -> Shapes:
    """Weights of `Qwen3Model`."""
    width, inner = sizes.width, sizes.heads * sizes.head_dim
    keys = sizes.key_heads * sizes.head_dim
    shapes: Shapes = {"embed_tokens.weight": (sizes.vocabulary, width), "norm.weight": (width,)}
    for index in range(sizes.blocks):
        layer = f"layers.{index}"
        shapes |= {
            f"{layer}.self_attn.q_proj.weight": (inner, width),
            f"{layer}.self_attn.k_proj.weight": (keys, width),
            f"{layer}.self_attn.v_proj.weight": (keys, width),
            f"{layer}.self_attn.o_proj.weight": (width, inner),
            f"{layer}.self_attn.q_norm.weight": (sizes.head_dim,),
            f"{layer}.self_attn.k_norm.weight": (sizes.head_dim,),
            f"{layer}.mlp.gate_proj.weight": (sizes.mlp, width),
            f"{layer}.mlp.up_proj.weight": (sizes.mlp, width),
            f"{layer}.mlp.down_proj.weight": (width, sizes.mlp),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
        }
    return shapes


def vae_shapes(architecture: VaeArchitecture, latent_channels: int) -> Shapes:
    """Weights of `AutoencoderKLQwenImage`."""
    multipliers, base = architecture.dim_mult, architecture.base_dim
    widths = [base * multiplier for multiplier in multipliers]
    return {
        **_encoder(architecture, [base, *widths], 2 * latent_channels),
        **_convolution("quant_conv", 2 * latent_channels, 2 * latent_channels, (1, 1, 1)),
        **_convolution("post_quant_conv", latent_channels, latent_channels, (1, 1, 1)),
        **_decoder(architecture, [widths[-1], *reversed(widths)], latent_channels),
    }


def _encoder(architecture: VaeArchitecture, widths: list[int], moments: int) -> Shapes:
    shapes = _convolution("encoder.conv_in", widths[0], IMAGE_CHANNELS, (3, 3, 3))
    place = 0
    for level, (width, out) in enumerate(pairwise(widths)):
        inner = width
        for _ in range(architecture.num_res_blocks):
            shapes |= _residual(f"encoder.down_blocks.{place}", inner, out)
            inner, place = out, place + 1
        if level < len(widths) - 2:
            down = f"encoder.down_blocks.{place}"
            shapes |= _convolution(f"{down}.resample.1", out, out, (3, 3))
            if architecture.temperal_downsample[level]:
                shapes |= _convolution(f"{down}.time_conv", out, out, (3, 1, 1))
            place += 1
    return (
        shapes
        | _middle("encoder.mid_block", widths[-1])
        | {"encoder.norm_out.gamma": (widths[-1], 1, 1, 1)}
        | _convolution("encoder.conv_out", moments, widths[-1], (3, 3, 3))
    )


def _decoder(architecture: VaeArchitecture, widths: list[int], latent_channels: int) -> Shapes:
    shapes = _convolution("decoder.conv_in", widths[0], latent_channels, (3, 3, 3))
    shapes |= _middle("decoder.mid_block", widths[0])
    for level, (width, out) in enumerate(pairwise(widths)):
        inner = width // 2 if level else width  # an up-sampler halves its channels
        block = f"decoder.up_blocks.{level}"
        for index in range(architecture.num_res_blocks + 1):
            shapes |= _residual(f"{block}.resnets.{index}", inner, out)
            inner = out
        if level < len(widths) - 2:
            up = f"{block}.upsamplers.0"
            shapes |= _convolution(f"{up}.resample.1", out // 2, out, (3, 3))
            if architecture.temperal_downsample[::-1][level]:
                shapes |= _convolution(f"{up}.time_conv", 2 * out, out, (3, 1, 1))
    return (
        shapes
        | {"decoder.norm_out.gamma": (widths[-1], 1, 1, 1)}
        | _convolution("decoder.conv_out", IMAGE_CHANNELS, widths[-1], (3, 3, 3))
    )


def _middle(name: str, width: int) -> Shapes:
    attention = f"{name}.attentions.0"
    return {
        f"{attention}.norm.gamma": (width, 1, 1),
        **_convolution(f"{attention}.to_qkv", 3 * width, width, (1, 1)),
        **_convolution(f"{attention}.proj", width, width, (1, 1)),
        **_residual(f"{name}.resnets.0", width, width),
        **_residual(f"{name}.resnets.1", width, width),
    }


def _residual(name: str, width: int, out: int) -> Shapes:
    shapes: Shapes = {
        f"{name}.norm1.gamma": (width, 1, 1, 1),
        f"{name}.norm2.gamma": (out, 1, 1, 1),
        **_convolution(f"{name}.conv1", out, width, (3, 3, 3)),
        **_convolution(f"{name}.conv2", out, out, (3, 3, 3)),
    }
    if width != out:
        shapes |= _convolution(f"{name}.conv_shortcut", out, width, (1, 1, 1))
    return shapes


def _convolution(name: str, out: int, width: int, kernel: tuple[int, ...]) -> Shapes:
    return {f"{name}.weight": (out, width, *kernel), f"{name}.bias": (out,)}

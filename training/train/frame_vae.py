"""The VAE of diffusers for one frame.

One frame uses only the last temporal tap of every causal 3-D convolution, so these are 2-D.
`expand` converts the weights to the library's `AutoencoderKLQwenImage`.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

BASE_DIM = 16
DIM_MULT = (1, 2, 3, 3)
RES_BLOCKS = 1
LATENT_CHANNELS = 16
TEMPERAL_DOWNSAMPLE = (False, True, True)


class Norm(nn.Module):
    """RMS norm over the channels of (B, C, H, W), as in diffusers."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(1, keepdim=True) + 1e-12)
        return (wide * scale * self.gamma).to(x.dtype)


class Residual(nn.Module):
    """Two convolutions with norms, and a shortcut."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.norm1, self.conv1 = Norm(dim_in), nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm2, self.conv2 = Norm(dim_out), nn.Conv2d(dim_out, dim_out, 3, padding=1)
        is_same = dim_in == dim_out
        self.conv_shortcut = nn.Identity() if is_same else nn.Conv2d(dim_in, dim_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return h + self.conv_shortcut(x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Single-head attention over all positions of a picture."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = Norm(dim)
        self.to_qkv, self.proj = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, -1)
        weights = torch.softmax((q @ k.transpose(1, 2)).float() / math.sqrt(C), -1)
        out = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(B, C, H, W)
        return x + self.proj(out)  # type: ignore[no-any-return]


class Middle(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, dim: int):
        super().__init__()
        self.resnets = nn.ModuleList([Residual(dim, dim), Residual(dim, dim)])
        self.attentions = nn.ModuleList([Attention(dim)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))  # type: ignore[no-any-return]


class Resample(nn.Module):
    """Halves or doubles the sides; its keys are those of diffusers."""

    def __init__(self, dim: int, *, is_up: bool):
        super().__init__()
        if is_up:
            grow = nn.Upsample(scale_factor=2.0, mode="nearest-exact")
            self.resample = nn.Sequential(grow, nn.Conv2d(dim, dim // 2, 3, padding=1))
        else:
            pad = nn.ZeroPad2d((0, 1, 0, 1))
            self.resample = nn.Sequential(pad, nn.Conv2d(dim, dim, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(x)  # type: ignore[no-any-return]


class UpBlock(nn.Module):
    """Residual blocks, then an upsampler unless it is the last block."""

    def __init__(self, dim_in: int, dim_out: int, blocks: int, *, is_last: bool):
        super().__init__()
        dims = [dim_in] + [dim_out] * blocks
        self.resnets = nn.ModuleList(Residual(dim, dim_out) for dim in dims)
        self.upsamplers = nn.ModuleList([] if is_last else [Resample(dim_out, is_up=True)])

    def forward(self, x: Tensor) -> Tensor:
        for module in (*self.resnets, *self.upsamplers):
            x = module(x)
        return x


class Encoder(nn.Module):
    """Maps pixels (B, 3, H, W) in [-1, 1] to mean and log variance (B, 32, H / 8, W / 8)."""

    def __init__(self, base: int, mult: tuple[int, ...], blocks: int):
        super().__init__()
        dims = [base * m for m in (1, *mult)]
        self.conv_in = nn.Conv2d(3, base, 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, (dim_in, dim_out) in enumerate(pairwise(dims)):
            for dim in [dim_in] + [dim_out] * (blocks - 1):
                self.down_blocks.append(Residual(dim, dim_out))
            if i < len(mult) - 1:
                self.down_blocks.append(Resample(dim_out, is_up=False))
        self.mid_block, self.norm_out = Middle(dims[-1]), Norm(dims[-1])
        self.conv_out = nn.Conv2d(dims[-1], 2 * LATENT_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(silu(self.norm_out(self.mid_block(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Maps latents (B, 16, H / 8, W / 8) to pixels (B, 3, H, W), not clamped."""

    def __init__(self, base: int, mult: tuple[int, ...], blocks: int):
        super().__init__()
        dims = [base * m for m in (mult[-1], *mult[::-1])]
        self.conv_in = nn.Conv2d(LATENT_CHANNELS, dims[0], 3, padding=1)
        self.mid_block = Middle(dims[0])
        self.up_blocks = nn.ModuleList()
        for i, (dim_in, dim_out) in enumerate(pairwise(dims)):
            halved = dim_in // 2 if i else dim_in
            is_last = i == len(mult) - 1
            self.up_blocks.append(UpBlock(halved, dim_out, blocks, is_last=is_last))
        self.norm_out, self.conv_out = Norm(dims[-1]), nn.Conv2d(dims[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(silu(self.norm_out(x)))  # type: ignore[no-any-return]


class FrameVae(nn.Module):
    """`AutoencoderKLQwenImage` for one frame: same keys, 2-D weights, no temporal weights."""

    def __init__(
        self, base: int = BASE_DIM, mult: tuple[int, ...] = DIM_MULT, blocks: int = RES_BLOCKS
    ):
        super().__init__()
        self.encoder = Encoder(base, mult, blocks)
        self.quant_conv = nn.Conv2d(2 * LATENT_CHANNELS, 2 * LATENT_CHANNELS, 1)
        self.post_quant_conv = nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        self.decoder = Decoder(base, mult, blocks)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the raw latents, float32."""
        mean, log_variance = self.quant_conv(self.encoder(x)).float().chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        """Pixels from raw latents, float32, not clamped."""
        return self.decoder(self.post_quant_conv(z)).float()  # type: ignore[no-any-return]


def expand(flat: dict[str, Tensor], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Convert 2-D weights to the library's shapes: the last temporal tap; other taps are zero.

    Raises:
        KeyError: a weight is unknown or missing.
    """
    unknown = flat.keys() - shapes.keys()
    if unknown:
        raise KeyError(f"the library's VAE has no {sorted(unknown)}")
    full = {}
    for name, shape in shapes.items():
        weight = torch.zeros(shape)
        if name not in flat and ".time_conv." not in name:
            raise KeyError(f"the trained VAE has no {name}")
        if name in flat and len(shape) == 5:
            weight[:, :, -1] = flat[name]
        elif name in flat:
            weight = flat[name].reshape(shape).clone()
        full[name] = weight
    return full

"""Plans a request's images: encoded inputs, masks and the schedule of each sampling pass."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from model.engine.images.pixels import Pixels, blend, latent_mask, resize, resize_mask, to_tensor
from model.errors import InputMissing, NonFiniteLatents
from model.resolved_request import ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG
from model.sampling.samplers import SAMPLERS
from model.sampling.schedules import build_sigmas
from model.sampling.trajectory import Passes, PassInputs, run_passes, upscale_latents
from model.workload import SamplingPass, sampling_passes

ReadImage: TypeAlias = Callable[[str], Pixels]
"""Returns the stored image of a name, (height, width, 3) uint8. Raises InputMissing."""


@dataclass(frozen=True, slots=True)
class LatentCodec:
    """Converts between pixels and latents.

    `encode` takes (1, 3, 1, H, W) in [-1, 1], `decode` returns (1, H, W, 3) uint8; latents are
    (1, `channels`, 1, H / `scale_factor`, W / `scale_factor`).
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Pixels]
    channels: int
    scale_factor: int
    device: torch.device

    def latents_of(self, pixels: Pixels) -> Tensor:
        """Encode one image. NonFiniteLatents if the encoder returns NaN or infinity."""
        latents = self.encode(to_tensor(pixels, device=self.device))
        if not torch.isfinite(latents).all():
            raise NonFiniteLatents("the encoded image contains NaN or infinity")
        return latents


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """A request's sampling passes with their inputs, shared by all its images.

    `original` and `mask` have the final size. A mask value of 0 keeps the pixel of `original`.
    Without them the whole image is new.
    """

    passes: tuple[SamplingPass, ...]
    inputs: tuple[PassInputs, ...]
    original: Pixels | None = None
    mask: Pixels | None = None

    @property
    def evaluations(self) -> int:
        """Model evaluations that one image takes."""
        return sum(sampling_pass.evaluations for sampling_pass in self.passes)

    def finish(self, latents: Tensor, codec: LatentCodec) -> Pixels:
        """Decode the final latents and put back what the mask keeps."""
        painted: Pixels = codec.decode(latents)[0]
        if self.original is None or self.mask is None:
            return painted
        return blend(painted, self.original, self.mask)


def plan_images(request: ResolvedRequest, read_image: ReadImage, codec: LatentCodec) -> ImagePlan:
    """Read and encode a request's input images and build the schedule of each pass.

    Raises:
        InputMissing: an input image is missing or not of the request's size.
        NonFiniteLatents: the encoder returns NaN or infinity.
    """
    original = _read(request.init_image, request, read_image)
    masked = _read(request.mask, request, read_image)
    mask = None if masked is None else masked[..., 0]
    planned, inputs = sampling_passes(request), list[PassInputs]()
    for one in planned:
        if original is not None:
            original = resize(original, one.width, one.height)
        if mask is not None:
            mask = resize_mask(mask, one.width, one.height)
        # A later pass starts from the pass before it. It needs the original only for its mask.
        needs_original = original is not None and (not inputs or mask is not None)
        inputs.append(_inputs(request, one, original if needs_original else None, mask, codec))
    return ImagePlan(planned, tuple(inputs), original, mask)


def _inputs(
    request: ResolvedRequest,
    one: SamplingPass,
    original: Pixels | None,
    mask: Pixels | None,
    codec: LatentCodec,
) -> PassInputs:
    scale = codec.scale_factor
    sampler = SAMPLER_CATALOG[request.sampler]
    sigmas = build_sigmas(request.scheduler, one.built, skips_last=sampler.skips_last_level)
    return PassInputs(
        shape=(1, codec.channels, 1, one.height // scale, one.width // scale),
        sigmas=sigmas[-one.levels - 1 :],
        original=None if original is None else codec.latents_of(original),
        mask=None if mask is None else latent_mask(mask, scale, device=codec.device),
        is_asked=one.is_asked,
        is_stochastic=sampler.is_stochastic,
    )


def _read(name: str | None, request: ResolvedRequest, read_image: ReadImage) -> Pixels | None:
    if name is None:
        return None
    pixels = read_image(name)
    if pixels.shape != (request.height, request.width, 3):
        raise InputMissing(
            f"{name} is an array of {pixels.shape}, not an image of "
            f"{request.width}x{request.height} pixels"
        )
    return pixels


def image_trajectory(
    request: ResolvedRequest, plan: ImagePlan, codec: LatentCodec, *, seed: int
) -> Passes:
    """Generate the evaluations of one image of the request, from `seed` to its final latents."""
    upscaler = request.hires.upscaler if request.hires else ""

    def upscale(latents: Tensor, target: PassInputs) -> Tensor:
        height, width = target.shape[-2:]
        if upscaler == "latent":
            return upscale_latents(latents, height, width)
        scale = codec.scale_factor
        return codec.latents_of(resize(codec.decode(latents)[0], width * scale, height * scale))

    sampler = partial(SAMPLERS[request.sampler], **request.sampler_options)
    return run_passes(plan.inputs, sampler, seed=seed, upscale=upscale, device=codec.device)

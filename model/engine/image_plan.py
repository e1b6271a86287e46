"""What a request is painted on: its pictures, read and encoded, and the legs over them.

Built once for all pictures of a request. Knows neither stores nor batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from model.engine.pixels import Pixels, blended, latent_mask, resized, resized_mask, to_tensor
from model.errors import InputMissing, NonFiniteLatents
from model.request import ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG
from model.sampling.samplers import SAMPLERS, Trajectory
from model.sampling.schedules import noise_levels
from model.sampling.trajectory import TrajectoryPass, enlarged_latents, walk
from model.workload import SamplingPass, passes

ReadImage: TypeAlias = Callable[[str], Pixels]
"""Gives the stored picture of a name, (height, width, 3) uint8; raises InputMissing."""


@dataclass(frozen=True, slots=True)
class LatentCodec:
    """Between pictures and latents.

    `encode` takes (1, 3, 1, H, W) in [-1, 1], `decode` gives (1, H, W, 3) uint8; latents are
    (1, `channels`, 1, H / `scale_factor`, W / `scale_factor`).
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Pixels]
    channels: int
    scale_factor: int
    device: torch.device

    def latents_of(self, pixels: Pixels) -> Tensor:
        """Encode one picture."""
        latents = self.encode(to_tensor(pixels, device=self.device))
        if not torch.isfinite(latents).all():
            raise NonFiniteLatents("the encoded picture contains NaN or infinity")
        return latents


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The legs of a request with their `parts`, and what is put back into its pictures at the end.

    `original` and `mask` have the final size; None means that all of a picture is new.
    """

    parts: tuple[SamplingPass, ...]
    legs: tuple[TrajectoryPass, ...]
    original: Pixels | None = None
    mask: Pixels | None = None

    @property
    def evaluations(self) -> int:
        """Model evaluations that one picture takes."""
        return sum(part.evaluations for part in self.parts)

    def finish(self, latents: Tensor, codec: LatentCodec) -> Pixels:
        """Decode, and put back what the mask keeps."""
        painted: Pixels = codec.decode(latents)[0]
        if self.original is None or self.mask is None:
            return painted
        return blended(painted, self.original, self.mask)


def prepare(request: ResolvedRequest, read_image: ReadImage, codec: LatentCodec) -> ImagePlan:
    """Read and encode a request's pictures and build the schedules of its passes.

    Raises:
        InputMissing: a picture is gone, or is not of the request's size.
        NonFiniteLatents: the encoder gave NaN or infinity.
    """
    original = _read(request.init_image, request, read_image)
    masked = _read(request.mask, request, read_image)
    mask = None if masked is None else masked[..., 0]
    parts, legs = passes(request), list[TrajectoryPass]()
    for part in parts:
        if original is not None:
            original = resized(original, part.width, part.height)
        if mask is not None:
            mask = resized_mask(mask, part.width, part.height)
        # A later leg goes on from the one before; it only needs what its mask keeps.
        is_origin = original is not None and (not legs or mask is not None)
        legs.append(
            _leg(part, _sigmas(request, part), original if is_origin else None, mask, codec)
        )
    return ImagePlan(parts, tuple(legs), original, mask)


def _sigmas(request: ResolvedRequest, part: SamplingPass) -> Tensor:
    """The levels that a pass walks, and the final 0."""
    skips_last = SAMPLER_CATALOG[request.sampler].skips_last_level
    return noise_levels(request.scheduler, part.built, skips_last=skips_last)[-part.levels - 1 :]


def _leg(
    part: SamplingPass,
    sigmas: Tensor,
    original: Pixels | None,
    mask: Pixels | None,
    codec: LatentCodec,
) -> TrajectoryPass:
    scale = codec.scale_factor
    return TrajectoryPass(
        shape=(1, codec.channels, 1, part.height // scale, part.width // scale),
        sigmas=sigmas,
        origin=None if original is None else codec.latents_of(original),
        mask=None if mask is None else latent_mask(mask, scale, device=codec.device),
    )


def _read(name: str | None, request: ResolvedRequest, read_image: ReadImage) -> Pixels | None:
    if name is None:
        return None
    pixels = read_image(name)
    if pixels.shape != (request.height, request.width, 3):
        raise InputMissing(
            f"{name} is an array of {pixels.shape}, not a picture of "
            f"{request.width}x{request.height} pixels"
        )
    return pixels


def trajectory(
    request: ResolvedRequest, canvas: ImagePlan, codec: LatentCodec, *, seed: int
) -> Trajectory:
    """One picture of the request, from `seed`, up to its final latents."""
    upscaler = request.hires.upscaler if request.hires else ""

    def enlarge(latents: Tensor, leg: TrajectoryPass) -> Tensor:
        height, width = leg.shape[-2:]
        if upscaler == "latent":
            return enlarged_latents(latents, height, width)
        scale = codec.scale_factor
        return codec.latents_of(resized(codec.decode(latents)[0], width * scale, height * scale))

    sampler = partial(SAMPLERS[request.sampler], **request.sampler_options)
    return walk(canvas.legs, sampler, seed=seed, enlarge=enlarge, device=codec.device)

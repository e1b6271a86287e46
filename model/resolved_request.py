"""Turns a client's request into the request that a worker runs, with every field filled."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from model.card import Card
from model.card_request import check_hires, check_sampler_options
from model.request import GenerationRequest, Hires, ImageFormat, MetadataLevel, Upscaler
from model.sampler_catalog import OptionValue, Quality
from model.sizes import enlarged_size, parse_resolution
from model.tags import assemble_prompt


class _ResolvedModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ResolvedLora(_ResolvedModel):
    """A LoRA with the SHA-256 of its file."""

    name: str
    weight: float
    sha256: str


LoraSet = tuple[ResolvedLora, ...]
"""LoRAs in the order in which they are applied."""


class ResolvedHires(_ResolvedModel):
    """A second pass of `steps` steps that ends at `width` x `height` pixels."""

    scale: float
    width: int
    height: int
    steps: int
    strength: float
    upscaler: Upscaler


class ResolvedRequest(_ResolvedModel):
    """A request with every field filled: the pictures are a pure function of it."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    cfg_scale: float
    sampler: str
    scheduler: str
    seed: int
    num_images: int
    image_format: ImageFormat
    image_quality: int
    metadata: MetadataLevel
    quality: Quality = "exact"
    deterministic: bool = False
    previews: bool = False
    sampler_options: dict[str, OptionValue] = {}
    loras: LoraSet = ()
    init_image: str | None = None
    strength: float | None = None
    mask: str | None = None
    hires: ResolvedHires | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names in the image store of the pictures that the request starts from."""
        return tuple(dict.fromkeys(name for name in (self.init_image, self.mask) if name))


@dataclass(frozen=True, slots=True)
class InputNames:
    """Names of a request's stored input pictures; both pictures are `width` x `height` pixels."""

    init_image: str
    mask: str | None
    width: int
    height: int


def resolve_request(
    request: GenerationRequest,
    card: Card,
    *,
    seed: int,
    inputs: InputNames | None = None,
    lora_hashes: Mapping[str, str] = MappingProxyType({}),
) -> ResolvedRequest:
    """Fill every open field from the card; `seed` is used if the request has none.

    Tags become part of the prompt. `inputs` are the request's stored pictures, which determine
    its size. `lora_hashes` has the SHA-256 of the file of every LoRA in the request.

    Raises:
        ValueError: the card does not allow the resolution or the second pass, or the sampler does
            not have an option.
        KeyError: the hash of a LoRA is missing.
    """
    defaults = card.defaults
    width, height = (
        (inputs.width, inputs.height)
        if inputs
        else parse_resolution(request.resolution or defaults.resolution, card)
    )
    sampler = request.sampler or defaults.sampler
    steps = request.steps or card.samplers[sampler].default_steps
    strength = defaults.strength if request.strength is None else request.strength
    prompt, negative_prompt = resolve_prompts(request, card)
    return ResolvedRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        steps=steps,
        cfg_scale=request.cfg_scale or defaults.cfg_scale,
        sampler=sampler,
        scheduler=request.scheduler or defaults.scheduler,
        seed=seed if request.seed is None else request.seed,
        num_images=request.num_images,
        image_format=request.image_format,
        image_quality=request.image_quality,
        metadata=request.metadata,
        loras=tuple(
            ResolvedLora(name=lora.name, weight=lora.weight, sha256=lora_hashes[lora.name])
            for lora in request.loras
        ),
        quality=request.quality,
        deterministic=request.deterministic,
        previews=request.previews,
        sampler_options=check_sampler_options(sampler, request.sampler_options or {}),
        init_image=inputs.init_image if inputs else None,
        strength=strength if inputs else None,
        mask=inputs.mask if inputs else None,
        hires=_resolve_hires(request.hires, card, width, height, steps=steps),
    )


def resolve_prompts(request: GenerationRequest, card: Card) -> tuple[str, str]:
    """The final prompt, with the tags, and the final negative prompt, by default the card's."""
    negative = request.negative_prompt
    return (
        assemble_prompt(request.tags, card.prompting, request.prompt or ""),
        card.defaults.negative_prompt if negative is None else negative,
    )


def _resolve_hires(
    hires: Hires | None, card: Card, width: int, height: int, *, steps: int
) -> ResolvedHires | None:
    if hires is None:
        return None
    check_hires(hires, width, height, card.limits)
    target = enlarged_size(width, height, hires.scale, card.limits)
    return ResolvedHires(
        scale=hires.scale,
        width=target[0],
        height=target[1],
        steps=hires.steps or steps,
        strength=card.defaults.hires_strength if hires.strength is None else hires.strength,
        upscaler=hires.upscaler,
    )

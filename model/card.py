"""Defines the card of a checkpoint: everything that differs between checkpoints, as data.

Cards are the files `model/cards/<name>.toml`.
"""

import difflib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from model.errors import CardError
from model.prompt_grammar import MAX_PROMPT_CHARS
from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, Quality


class CardTable(BaseModel):
    """A TOML table without unknown keys, immutable once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Licence(CardTable):
    """Terms of use of the weights."""

    name: str
    url: str | None = None
    is_commercial_use_allowed: bool
    notice: str


class Source(CardTable):
    """A Hugging Face repository to download a file or a tokenizer folder from."""

    repo: str = Field(pattern="^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    path: str
    revision: str = "main"


class WeightFile(CardTable):
    """A file of the checkpoint, relative to the checkpoint directory.

    `note` says how to get a file that has no `source`. `size_gb` is its size in 10^9 bytes.
    """

    path: str
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    size_gb: float | None = None
    source: Source | None = None
    note: str = ""


class Files(CardTable):
    """Paths of the parts of the checkpoint. Tokenizers are folders."""

    transformer: WeightFile
    text_encoder: WeightFile
    vae: WeightFile
    qwen_tokenizer: str
    t5_tokenizer: str
    qwen_tokenizer_source: Source | None = None
    t5_tokenizer_source: Source | None = None


class TransformerArchitecture(CardTable):
    """Parameters of the transformer that its tensors do not reveal."""

    rope_scale: tuple[float, float, float] = (1.0, 4.0, 4.0)
    latent_channels: int = 16


class TextArchitecture(CardTable):
    """Parameters of the text path that its tensors do not reveal: tokens and context rows.

    `empty_prompt` selects the encoding of a prompt without words. `training` is a zero vector
    instead of Qwen3's states, as in training with dropped captions. `comfy` is Qwen3's states of
    its padding token, as in ComfyUI. The pictures differ.
    """

    context_rows: int = 512
    max_tokens: int = 512
    empty_prompt: Literal["training", "comfy"] = "training"
    qwen_rope_theta: float = 1e6
    qwen_rms_norm_eps: float = 1e-6

    @property
    def token_limit(self) -> int:
        """Maximum number of Qwen and of T5 tokens, including the T5 end token."""
        return min(self.max_tokens, self.context_rows)


class VaeArchitecture(CardTable):
    """Parameters of the VAE that its tensors do not reveal; mean and std per latent channel."""

    base_dim: int = 96
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    scale_factor: int = 8
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]


class PreviewMap(CardTable):
    """A linear map from normalised latents to RGB in [-1, 1], for previews.

    `factors` has a row (red, green, blue) per latent channel. `rms_error` is the error against
    pictures reduced to the latents' size, on a scale of 255 levels; null if not measured.
    """

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]
    rms_error: float | None = None
    source: str


class Resolution(CardTable):
    """A named size in pixels. `group` is the resolution class of its training."""

    name: str = Field(pattern="^[a-z0-9_]+$")
    width: int
    height: int
    group: int


class Limits(CardTable):
    """Limits of a request."""

    min_side: int
    max_side: int
    max_pixels: int
    multiple: int = 16
    max_steps: int = Field(le=200)
    max_cfg_scale: float = 30.0
    max_prompt_chars: int = Field(  # a limit of the service; a card cannot change it
        default=MAX_PROMPT_CHARS, ge=MAX_PROMPT_CHARS, le=MAX_PROMPT_CHARS
    )
    max_images: int = 8

    def size_problem(self, width: int, height: int) -> str | None:
        """Why a picture of `width` x `height` pixels is not allowed; None if it is."""
        for name, side in (("width", width), ("height", height)):
            if side % self.multiple:
                return f"{name} {side} is not a multiple of {self.multiple}"
            if not self.min_side <= side <= self.max_side:
                return f"{name} {side} is outside {self.min_side} to {self.max_side} pixels"
        if width * height > self.max_pixels:
            return f"{width}x{height} is {width * height} pixels; the limit is {self.max_pixels}"
        return None


class SamplerAdvice(CardTable):
    """How to use a sampler with the checkpoint; its authors recommend it if `is_recommended`."""

    default_steps: int
    recommended_steps: tuple[int, int]
    is_recommended: bool = False
    note: str = ""


class QualityAdvice(CardTable):
    """A quality beside `exact`: the samplers with which it is better than fewer steps.

    `float8_samplers` are those with which it still is if its products are float8, which workers do
    only as an experiment.
    """

    samplers: Annotated[tuple[str, ...], Field(min_length=1)]
    float8_samplers: tuple[str, ...] = ()
    note: str


class Defaults(CardTable):
    """Defaults of the fields of a request."""

    resolution: str
    sampler: str
    scheduler: str
    cfg_scale: float
    negative_prompt: str
    strength: float = Field(default=0.6, gt=0, le=1)
    hires_strength: float = Field(default=0.5, gt=0, le=1)


TagGroup = Literal[
    "quality", "meta", "safety", "subject", "character", "series", "artist", "general"
]


class Prompting(CardTable):
    """How to write prompts for the checkpoint."""

    tag_order: tuple[TagGroup, ...]
    quality: tuple[str, ...]
    low_quality: tuple[str, ...] = ()
    meta: tuple[str, ...]
    safety: tuple[str, ...]
    subject: tuple[str, ...]
    artist_prefix: str = "@"
    styles: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    example: str
    short_prompt_tags: int = 8
    notes: tuple[str, ...] = ()


class Limitation(CardTable):
    """A known weakness of the checkpoint."""

    code: str
    detail: str


class Training(CardTable):
    """How the checkpoint was trained, according to its page."""

    images: int | None = None
    samples_seen: int | None = None
    hours: float | None = None
    facts: dict[str, str] = {}


class Card(CardTable):
    """Everything the service knows about a checkpoint.

    `page` is the address of the checkpoint's page. If `recommended_schedulers` is empty, all
    `schedulers` are recommended. `qualities` are those offered beside `exact`. `is_distilled` means
    that the model predicts the picture from any noise level in one evaluation.
    """

    name: str = Field(pattern="^[a-z0-9-]+$")
    title: str
    version: str
    summary: str
    architecture: Literal["anima"]
    base_model: str
    page: str | None = None
    licence: Licence
    files: Files
    transformer: TransformerArchitecture = TransformerArchitecture()
    text: TextArchitecture = TextArchitecture()
    vae: VaeArchitecture
    preview: PreviewMap
    limits: Limits
    resolutions: Annotated[tuple[Resolution, ...], Field(min_length=1)]
    defaults: Defaults
    recommended_cfg_scale: tuple[float, float]
    samplers: dict[str, SamplerAdvice]
    schedulers: tuple[str, ...]
    recommended_schedulers: tuple[str, ...] = ()
    scheduler_notes: dict[str, str] = {}
    qualities: dict[Quality, QualityAdvice] = {}
    is_distilled: bool = False
    prompting: Prompting
    limitations: tuple[Limitation, ...] = ()
    lora_bases: tuple[str, ...] = Field(
        default=(),
        description="Lower-case words that identify this checkpoint in the metadata of a LoRA.",
    )
    training: Training = Training()

    def takes_float8(self, quality: Quality, sampler: str) -> bool:
        """Whether images of this quality may be computed in float8. Exact ones never are."""
        advice = self.qualities.get(quality)
        return advice is not None and sampler in advice.float8_samplers

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        """Refuse a card that contradicts itself or names something unknown."""
        presets = {preset.name for preset in self.resolutions}
        unknown = set(self.samplers) - set(SAMPLER_CATALOG)
        distilled = {name for name, info in SAMPLER_CATALOG.items() if info.refusal}
        checks = {
            f"samplers unknown to the service: {sorted(unknown)}": not unknown,
            "schedulers contain a name unknown to the service": set(self.schedulers)
            <= set(SCHEDULE_DISPLAY_NAMES),
            "prompting.tag_order needs every group once": sorted(self.prompting.tag_order)
            == sorted(get_args(TagGroup)),
            "qualities: exact is always offered": "exact" not in self.qualities,
            "qualities have a sampler that is not offered": all(
                {*advice.samplers} <= {*self.samplers} for advice in self.qualities.values()
            ),
            "qualities: float8_samplers are some of samplers": all(
                {*one.float8_samplers} <= {*one.samplers} for one in self.qualities.values()
            ),
            "preset names repeat": len(presets) == len(self.resolutions),
            "defaults.resolution is not a preset": self.defaults.resolution in presets,
            f"samplers for distilled checkpoints only: {sorted(distilled)}": (
                self.is_distilled or not set(self.samplers) & distilled
            ),
            "recommended_schedulers or scheduler_notes has a scheduler that is not offered": (
                {*self.recommended_schedulers, *self.scheduler_notes} <= set(self.schedulers)
            ),
            "defaults.sampler is not offered": self.defaults.sampler in self.samplers,
            "defaults.scheduler is not offered": self.defaults.scheduler in self.schedulers,
            "latents_mean and latents_std need one number per latent channel": (
                len(self.vae.latents_mean)
                == len(self.vae.latents_std)
                == self.transformer.latent_channels
            ),
        }
        checks["preview.factors needs one row per latent channel"] = (
            len(self.preview.factors) == self.transformer.latent_channels
        )
        for preset in self.resolutions:
            checks[f"preset {preset.name} breaks the size limits"] = (
                self.limits.size_problem(preset.width, preset.height) is None
            )
        for name, advice in self.samplers.items():
            checks[f"samplers.{name} recommends more than limits.max_steps"] = (
                advice.recommended_steps[1] <= self.limits.max_steps
            )
        broken = [message for message, holds in checks.items() if not holds]
        if broken:
            raise ValueError("; ".join(broken))
        return self


def card_names() -> list[str]:
    """Names of the cards in the package."""
    folder = resources.files("model") / "cards"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def shipped_folder(card: Card) -> Path:
    """The checkpoint directory in the package for one of its cards."""
    return Path(__file__).parent / "checkpoints" / card.name


def load_card(name_or_path: str) -> Card:
    """Load a card of the package by name, or any card by the path of its `.toml` file.

    Raises:
        CardError: the card does not exist, is not valid TOML or has a wrong field.
    """
    if name_or_path.endswith(".toml"):
        file = Path(name_or_path)
        if not file.is_file():
            raise CardError(f"no card file at {file}")
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as exc:
            raise CardError(f"card {file} is not UTF-8 text") from exc
    elif name_or_path in card_names():
        text = (resources.files("model") / "cards" / f"{name_or_path}.toml").read_text("utf-8")
    else:
        raise CardError(f"no card named {name_or_path!r}; the cards are {', '.join(card_names())}")
    try:
        return Card.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise CardError(f"card {name_or_path}: {exc}") from exc
    except ValidationError as exc:
        problems = "; ".join(map(_problem, exc.errors(include_url=False)))
        raise CardError(f"card {name_or_path}: {problems}") from exc


def _problem(error: ErrorDetails) -> str:
    """A validation error as "[table] key: what is wrong with it", in one line."""
    *table, key = error["loc"] or ("",)
    place = f"{key}: " if key else ""
    if table:
        path = (f"#{name + 1}" if isinstance(name, int) else name for name in table)
        place = f"[{'.'.join(path)}] {place}"
    match error["type"]:
        case "extra_forbidden":
            names = [name for kind in CardTable.__subclasses__() for name in kind.model_fields]
            near = difflib.get_close_matches(str(key), names, n=1)
            told = "unknown key" + (f"; is it {near[0]}?" if near else "")
        case "missing":
            told = "this key is missing"
        case "value_error":
            told = error["msg"].removeprefix("Value error, ")
        case _:
            told = f"{error['msg']}, not {error['input']!r:.60}"
    return place + told

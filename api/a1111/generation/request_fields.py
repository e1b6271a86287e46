"""Request bodies of `txt2img` and `img2img`. Unknown fields are ignored.

As in the web UI, every field may be null or missing, and values are converted.
"""

from typing import Any

from pydantic import Field, model_validator

from api.a1111.generation.ignored_fields import NONE, ignored
from api.a1111.leniency import A1111Input
from model.recipes.infotext_syntax import MAX_INFOTEXT_CHARS
from model.request import field_description

MAX_SIDE = 16_384
_MAX_IMAGES = 100
_SAME_AS_FIRST = "the second pass uses that of the first"
_WHOLE = "the image is always processed as a whole"


class Processing(A1111Input):
    """Fields that `txt2img` and `img2img` share."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_fields(cls, body: Any) -> Any:
        """Web forms send "" for fields that were not filled in."""
        if not isinstance(body, dict):
            return body
        return {
            name: value
            for name, value in body.items()
            if value is not None and (value != "" or name == "negative_prompt")
        }

    prompt: str | None = Field(
        default=None,
        max_length=MAX_INFOTEXT_CHARS,
        description="Tags, prose or both. `<lora:name:0.8>` applies a LoRA.",
        examples=["masterpiece, best quality, 1girl, blue hair, smile <lora:watercolor:0.8>"],
    )
    negative_prompt: str | None = Field(
        default=None,
        max_length=MAX_INFOTEXT_CHARS,
        description=f"{field_description('negative_prompt')} If missing, the default of the "
        "checkpoint is used.",
        examples=["worst quality, low quality"],
    )
    styles: list[str] | None = ignored(*NONE)
    seed: int | None = Field(
        default=-1,
        description="If negative or missing, a random seed is used. Image k uses seed + k.",
        examples=[42],
    )
    sampler_name: str | None = Field(
        default=None,
        description="A name from `/sdapi/v1/samplers` or a name of the web UI, such as `Euler a` "
        "or `DPM++ 2M Karras`. If missing, the default of the checkpoint is used.",
        examples=["Euler a"],
    )
    sampler_index: str | None = Field(
        default=None,
        description="Older name of `sampler_name`; used only if `sampler_name` is missing.",
        examples=["Euler a"],
    )
    scheduler: str | None = Field(
        default=None,
        description="A name from `/sdapi/v1/schedulers` or a name of the web UI. If `Automatic` or "
        "missing, the default of the checkpoint is used.",
        examples=["Automatic"],
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_IMAGES,
        description="Number of images, multiplied by `n_iter`. The checkpoint limits the product.",
        examples=[1],
    )
    n_iter: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_IMAGES,
        description="Multiplies `batch_size`.",
        examples=[1],
    )
    steps: int | None = Field(
        default=None,
        description=f"{field_description('steps')} If missing, the default of the sampler is used.",
        examples=[30],
    )
    cfg_scale: float | None = Field(
        default=None,
        description=f"{field_description('cfg_scale')} If missing, the default of the "
        "checkpoint is used.",
        examples=[4.0],
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=MAX_SIDE,
        description="In pixels, adjusted to the limits of the checkpoint. 512x512, the web UI's "
        "default, means the default size of the checkpoint, or the size of the initial image.",
        examples=[832],
    )
    height: int | None = Field(
        default=None, ge=1, le=MAX_SIDE, description="See `width`.", examples=[1216]
    )
    denoising_strength: float | None = Field(
        default=None,
        description="How much the initial image may change. For `txt2img` with `enable_hr`: how "
        "much the second pass may change the image of the first.",
        examples=[0.6],
    )
    override_settings: dict[str, Any] | None = Field(
        default=None,
        description="`samples_format`, `jpeg_quality` and `live_previews_enable` apply to this "
        "call. `sd_model_checkpoint` must name the loaded checkpoint. Other settings are ignored.",
        examples=[{"samples_format": "webp"}],
    )
    infotext: str | None = Field(
        default=None,
        max_length=MAX_INFOTEXT_CHARS,
        description="A `parameters` text. It provides the values of missing fields.",
        examples=["1girl, smile\nNegative prompt: \nSteps: 30, Sampler: ER SDE, Seed: 42"],
    )
    send_images: bool | None = Field(
        default=None,
        description="If false, the response has no images, only `info`.",
        examples=[True],
    )
    script_name: str | None = Field(
        default=None, description="Must be empty: scripts are not supported.", examples=[""]
    )
    alwayson_scripts: dict[str, Any] | None = ignored(example={})
    subseed: int | None = ignored(-1, needs="subseed_strength")
    subseed_strength: float | None = ignored(0)
    seed_resize_from_h: int | None = ignored(-1, 0)
    seed_resize_from_w: int | None = ignored(-1, 0)
    restore_faces: bool | None = ignored(False)
    tiling: bool | None = ignored(False)
    eta: float | None = ignored(1, reason="the sampler uses its default")
    s_churn: float | None = ignored(0)
    s_tmin: float | None = ignored(0)
    s_tmax: float | None = ignored(0)
    s_noise: float | None = ignored(1, reason="the sampler uses its default")
    s_min_uncond: float | None = ignored(0)
    refiner_checkpoint: str | None = ignored(*NONE)
    refiner_switch_at: float | None = ignored(needs="refiner_checkpoint", example=0.8)
    token_merging_ratio: float | None = ignored(0)
    token_merging_ratio_hr: float | None = ignored(0, needs="enable_hr")
    disable_extra_networks: bool | None = ignored(False, reason="`<lora:…>` is applied")
    override_settings_restore_afterwards: bool | None = ignored(
        True, reason="`override_settings` apply to this call only"
    )
    do_not_save_samples: bool | None = ignored(
        False, reason="images are kept here for a limited time"
    )
    force_task_id: str | None = ignored(*NONE, reason="`job_id` is the id of the task")


class TextToImage(Processing):
    """Generates images from a prompt."""

    enable_hr: bool | None = Field(
        default=None, description="Add a second pass at a higher resolution.", examples=[False]
    )
    hr_scale: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Size of the result relative to `width` x `height`, within the limits of the "
        "checkpoint. If missing: 2.",
        examples=[1.5],
    )
    hr_resize_x: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SIDE,
        description="Width of the result in pixels, used instead of `hr_scale`. 0 means not set.",
        examples=[0],
    )
    hr_resize_y: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SIDE,
        description="Height of the result in pixels; see `hr_resize_x`.",
        examples=[0],
    )
    hr_second_pass_steps: int | None = Field(
        default=None,
        description="Steps of the second pass. If 0 or missing: those of the first pass.",
        examples=[0],
    )
    hr_upscaler: str | None = Field(
        default=None,
        description="If the name begins with `Latent`, latents are enlarged; otherwise the image "
        "is enlarged with Lanczos.",
        examples=["Latent (bicubic)"],
    )
    firstpass_image: str | None = ignored(*NONE, needs="enable_hr")
    firstphase_width: int | None = ignored(0, needs="enable_hr")
    firstphase_height: int | None = ignored(0, needs="enable_hr")
    hr_prompt: str | None = ignored(*NONE, reason=_SAME_AS_FIRST, needs="enable_hr")
    hr_negative_prompt: str | None = ignored(*NONE, reason=_SAME_AS_FIRST, needs="enable_hr")
    hr_sampler_name: str | None = ignored(
        *NONE, "use same sampler", reason=_SAME_AS_FIRST, needs="enable_hr"
    )
    hr_scheduler: str | None = ignored(
        *NONE, "automatic", "use same scheduler", reason=_SAME_AS_FIRST, needs="enable_hr"
    )
    hr_checkpoint_name: str | None = ignored(
        *NONE, "use same checkpoint", reason=_SAME_AS_FIRST, needs="enable_hr"
    )


class ImageToImage(Processing):
    """Generates images from an image."""

    init_images: list[str] | None = Field(
        default=None,
        max_length=_MAX_IMAGES,
        description="The initial image, in base64 or as a data URL. Only the first is used.",
        examples=[["iVBORw0KGgo…"]],
    )
    mask: str | None = Field(
        default=None,
        description="White areas are repainted. If the mask has transparency, opaque areas are.",
        examples=["iVBORw0KGgo…"],
    )
    mask_blur: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Blur radius of the mask's edge in pixels. If missing: 4.",
        examples=[4],
    )
    inpainting_mask_invert: int | None = Field(
        default=None, ge=0, le=1, description="If 1, black areas are repainted.", examples=[0]
    )
    include_init_images: bool | None = Field(
        default=None,
        description="If true, `parameters` of the response includes the images of the request.",
        examples=[False],
    )
    mask_blur_x: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Used instead of `mask_blur` if `mask_blur_y` is the same.",
        examples=[4],
    )
    mask_blur_y: int | None = Field(
        default=None, ge=0, le=256, description="See `mask_blur_x`.", examples=[4]
    )
    resize_mode: int | None = ignored(1, reason="the image is scaled and cropped to cover the size")
    inpainting_fill: int | None = ignored(
        1, reason="the masked area starts from its original content", needs="mask"
    )
    inpaint_full_res: bool | None = ignored(False, reason=_WHOLE, needs="mask")
    inpaint_full_res_padding: int | None = ignored(0, reason=_WHOLE, needs="inpaint_full_res")
    mask_round: bool | None = ignored(
        False, reason="grey areas of the mask are mixed", needs="mask"
    )
    latent_mask: str | None = ignored(*NONE)
    image_cfg_scale: float | None = ignored(example=1.5)
    initial_noise_multiplier: float | None = ignored(1)

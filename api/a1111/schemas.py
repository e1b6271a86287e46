"""The bodies of the A1111 surface, as far as they mean anything here. Unknown fields are ignored.

Everything may be null or missing, as with the web UI; numbers may come as texts.
"""

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from model.recipes.infotext import MAX_INFOTEXT_CHARS

MAX_SIDE = 16_384
_MOST_IMAGES = 100


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


def _as_lenient_as_read(schema: dict[str, Any]) -> None:
    """Say in the document that numbers may be texts, and switches numbers or texts."""
    for field in schema["properties"].values():
        choices = field.get("anyOf", [])
        kinds = {choice.get("type") for choice in choices}
        if kinds & {"integer", "number", "boolean"}:
            choices.append({"type": "string"})
        if "boolean" in kinds:
            choices.append({"type": "integer"})


_NUMBERS = (int | None, float | None)


class Processing(_Body):
    """What both ways to make pictures have in common."""

    model_config = ConfigDict(json_schema_extra=_as_lenient_as_read)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        if (
            isinstance(value, bool)
            and cls.model_fields[f"{info.field_name}"].annotation in _NUMBERS
        ):
            raise ValueError("a number is needed, not true or false")
        return value

    @model_validator(mode="before")
    @classmethod
    def _without_gaps(cls, body: Any) -> Any:
        """Forms send empty texts where nothing was filled in."""
        if not isinstance(body, dict):
            return body
        return {
            name: value
            for name, value in body.items()
            if value is not None and (value != "" or name == "negative_prompt")
        }

    prompt: str | None = Field(
        default=None,
        description="Tags, prose or both; `<lora:name:0.8>` takes a LoRA.",
        examples=["masterpiece, best quality, 1girl, blue hair, smile <lora:watercolor:0.8>"],
    )
    negative_prompt: str | None = Field(
        default=None,
        description='What to steer away from; missing takes the checkpoint\'s default, "" none.',
        examples=["worst quality, low quality"],
    )
    styles: list[str] | None = Field(
        default=None, description="Ignored: there are none here.", examples=[[]]
    )
    seed: int | None = Field(
        default=-1, description="Negative or missing: drawn. Image k uses seed + k.", examples=[42]
    )
    sampler_name: str | None = Field(
        default=None,
        description="As `/sdapi/v1/samplers` or the web UI name it, such as `Euler a` or "
        "`DPM++ 2M Karras`; missing takes the checkpoint's default.",
        examples=["Euler a"],
    )
    sampler_index: str | None = Field(
        default=None,
        description="The older name of `sampler_name`, which counts before it.",
        examples=["Euler a"],
    )
    scheduler: str | None = Field(
        default=None,
        description="As `/sdapi/v1/schedulers` or the web UI name it; `Automatic` or missing "
        "takes the checkpoint's default.",
        examples=["Automatic"],
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_IMAGES,
        description="Images; times `n_iter` at most the checkpoint's limit.",
        examples=[1],
    )
    n_iter: int | None = Field(
        default=None, ge=1, le=_MOST_IMAGES, description="Times `batch_size`.", examples=[1]
    )
    steps: int | None = Field(
        default=None,
        description="Sampling steps; missing takes the sampler's default.",
        examples=[30],
    )
    cfg_scale: float | None = Field(
        default=None,
        description="Guidance; missing takes the checkpoint's default.",
        examples=[4.0],
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=MAX_SIDE,
        description="In pixels, fitted to the checkpoint's limits. 512x512, the web UI's default, "
        "stands for the checkpoint's own default, or for the size of the picture to start from.",
        examples=[832],
    )
    height: int | None = Field(
        default=None, ge=1, le=MAX_SIDE, description="As `width`.", examples=[1216]
    )
    denoising_strength: float | None = Field(
        default=None,
        description="How much of the picture to start from may change, or, where there is none, "
        "of the first pass with `enable_hr`.",
        examples=[0.6],
    )
    override_settings: dict[str, Any] | None = Field(
        default=None,
        description="`samples_format`, `jpeg_quality` and `live_previews_enable` hold for this "
        "call; `sd_model_checkpoint` must be the one there is; others are ignored.",
        examples=[{"samples_format": "webp"}],
    )
    infotext: str | None = Field(
        default=None,
        max_length=MAX_INFOTEXT_CHARS,
        description="A `parameters` text; fields that are missing are taken from it.",
        examples=["1girl, smile\nNegative prompt: \nSteps: 30, Sampler: ER SDE, Seed: 42"],
    )
    send_images: bool | None = Field(
        default=None, description="false: the answer has no pictures, only `info`.", examples=[True]
    )
    script_name: str | None = Field(
        default=None, description="Must be empty: there are no scripts here.", examples=[""]
    )
    alwayson_scripts: dict[str, Any] | None = Field(
        default=None, description="Ignored: there are none here.", examples=[{}]
    )
    subseed_strength: float | None = Field(default=None, description="Ignored.", examples=[0])
    restore_faces: bool | None = Field(default=None, description="Ignored.", examples=[False])
    tiling: bool | None = Field(default=None, description="Ignored.", examples=[False])
    refiner_checkpoint: str | None = Field(default=None, description="Ignored.", examples=[""])


class TextToImage(Processing):
    """A picture from words, as the web UI's clients ask for it."""

    enable_hr: bool | None = Field(
        default=None, description="A second pass at a higher resolution.", examples=[False]
    )
    hr_scale: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="By how much larger than `width` x `height` the result is, within the "
        "checkpoint's limits; missing: 2.",
        examples=[1.5],
    )
    hr_resize_x: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SIDE,
        description="Width of the result instead of `hr_scale`; 0: not given.",
        examples=[0],
    )
    hr_resize_y: int | None = Field(
        default=None, ge=0, le=MAX_SIDE, description="As `hr_resize_x`.", examples=[0]
    )
    hr_second_pass_steps: int | None = Field(
        default=None, description="0 or missing: as many as the first.", examples=[0]
    )
    hr_upscaler: str | None = Field(
        default=None,
        description="Those whose name begins with `Latent` enlarge latents; all others, Lanczos.",
        examples=["Latent (bicubic)"],
    )
    hr_prompt: str | None = Field(default=None, description="Ignored.", examples=[""])
    hr_negative_prompt: str | None = Field(default=None, description="Ignored.", examples=[""])
    hr_sampler_name: str | None = Field(default=None, description="Ignored.", examples=[""])
    hr_checkpoint_name: str | None = Field(default=None, description="Ignored.", examples=[""])


class ImageToImage(Processing):
    """A picture from another one, as the web UI's clients ask for it."""

    init_images: list[str] | None = Field(
        default=None,
        max_length=_MOST_IMAGES,
        description="The picture to start from, in base64 or as data URL; of several the first.",
        examples=[["iVBORw0KGgo…"]],
    )
    mask: str | None = Field(
        default=None,
        description="White is repainted; of a picture with transparency, what is opaque.",
        examples=["iVBORw0KGgo…"],
    )
    mask_blur: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Pixels by which the mask's edge is softened; missing: 4.",
        examples=[4],
    )
    inpainting_mask_invert: int | None = Field(
        default=None, ge=0, le=1, description="1: black is repainted.", examples=[0]
    )
    include_init_images: bool | None = Field(
        default=None, description="true: `parameters` of the answer has them.", examples=[False]
    )
    inpaint_full_res: bool | int | None = Field(
        default=None,
        description="Ignored: a masked picture is worked on as a whole.",
        examples=[False],
    )
    inpainting_fill: int | None = Field(
        default=None, description="Ignored: what is masked starts as it is.", examples=[1]
    )
    resize_mode: int | None = Field(
        default=None,
        description="Ignored: the picture is scaled and cropped to cover the size.",
        examples=[1],
    )


class A1111PngInfoRequest(_Body):
    """A picture whose text is wanted."""

    image: str = Field(
        description="PNG, JPEG, WebP or AVIF in base64 or as data URL.", examples=["iVBORw0KGgo…"]
    )


class A1111PngInfo(_Body):
    """What a picture says of how it was made."""

    info: str = Field(
        description='The `parameters` text; "" where there is none.',
        examples=["1girl\nNegative prompt: \nSteps: 30, Sampler: ER SDE, Seed: 42, Size: 832x1216"],
    )
    items: dict[str, Any] = Field(
        description="Other texts of the file, by their keyword.", examples=[{}]
    )
    parameters: dict[str, Any] = Field(
        description="`info` taken apart; all values are texts.",
        examples=[{"Prompt": "1girl", "Steps": "30", "Size-1": "832", "Size-2": "1216"}],
    )


class A1111Pictures(_Body):
    """Finished pictures."""

    images: list[str] = Field(description="The files in base64.", examples=[["iVBORw0KGgo…"]])
    parameters: dict[str, Any] = Field(
        description="The fields of the request that are known here.",
        examples=[{"prompt": "1girl", "steps": 30}],
    )
    info: str = Field(
        description="JSON: `seed`, `all_seeds`, `infotexts`, `width`, `height` and more; "
        "`job_id` is the job, `warnings` says what was ignored or changed.",
        examples=['{"seed": 42, "all_seeds": [42], "infotexts": ["1girl…"], "job_id": "01JD…"}'],
    )


class A1111State(_Body):
    """Where the current job is."""

    skipped: bool = Field(description="Always false.", examples=[False])
    interrupted: bool = Field(description="Always false.", examples=[False])
    stopping_generation: bool = Field(description="Always false.", examples=[False])
    job: str = Field(
        description='The current job; "" where there is none.',
        examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
    )
    job_count: int = Field(description="The client's jobs that have not ended.", examples=[1])
    job_timestamp: str = Field(
        description="When the current job was submitted; 0: there is none.",
        examples=["20261123120000"],
    )
    job_no: int = Field(description="Always 0: the first of them is told of.", examples=[0])
    sampling_step: int = Field(description="Of the current job.", examples=[7])
    sampling_steps: int = Field(description="Of the current job.", examples=[30])


class A1111Progress(_Body):
    """How far the client's own current job is; without one, `progress` and `job_count` are 0."""

    progress: float = Field(description="0 to 1.", ge=0, le=1, examples=[0.23])
    eta_relative: float = Field(description="Seconds that are left.", examples=[2.1])
    state: A1111State = Field(
        description="The same in numbers.",
        examples=[
            {
                "skipped": False,
                "interrupted": False,
                "stopping_generation": False,
                "job": "01JD6Z1Q8M4T0V7C2N5K9R3XWB",
                "job_count": 1,
                "job_timestamp": "20261123120000",
                "job_no": 0,
                "sampling_step": 7,
                "sampling_steps": 30,
            }
        ],
    )
    current_image: str | None = Field(
        description="The newest preview, a small WebP in base64.", examples=["UklGRg…"]
    )
    textinfo: str | None = Field(
        description="How many jobs wait before it; null once it runs.", examples=[None]
    )
    current_task: str | None = Field(
        description="The current job's id.", examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"]
    )


class A1111Done(_Body):
    """Nothing more to say."""


class A1111Error(_Body):
    """An error as the web UI's clients know it."""

    error: str = Field(
        description="What kind of error: the code of a problem.", examples=["validation_failed"]
    )
    detail: str | list[dict[str, Any]] = Field(
        description="What is wrong; one entry for every wrong field.",
        examples=["Sampler not found"],
    )
    body: str = Field(description="Always empty.", examples=[""])
    errors: str = Field(
        description="The same as one text.", examples=["steps: at most 100; got 500"]
    )
    job_id: str | None = Field(
        default=None,
        description="The job of the call, where it goes on or has ended otherwise: "
        "`GET /jobs/{job_id}`.",
        examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
    )

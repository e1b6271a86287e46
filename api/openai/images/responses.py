"""Response bodies and stream events in the OpenAI format."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Final, Literal

from pydantic import Field

from api.http.response_model import AbsentIfNone, ResponseModel
from model.card import Card
from model.prompting.tokens import Tokenizers, count_tokens
from model.request import ImageFormat
from worker.job import Job, StoredImage

_EXAMPLE_ID: Final = "01JD6Z1Q8M4T0V7C2N5K9R3XWB"

AnsweredQuality = Literal["low", "medium", "high", "xhigh", "max"]
QUALITIES: Final[dict[str | None, AnsweredQuality]] = {
    "low": "low",
    "auto": "medium",
    "medium": "medium",
    "standard": "medium",
    "high": "high",
    "hd": "high",
    "xhigh": "xhigh",
    "max": "max",
}


class TokenDetails(ResponseModel):
    """Tokens by kind. An image token is one latent token: 16 x 16 pixels with Anima."""

    image_tokens: int = Field(ge=0, examples=[0])
    text_tokens: int = Field(ge=0, examples=[38])


class Usage(ResponseModel):
    """Tokens used. Text is counted with the Qwen3 tokenizer; 0 if the API does not have it."""

    input_tokens: int = Field(ge=0, examples=[38])
    output_tokens: int = Field(ge=0, examples=[4096])
    total_tokens: int = Field(ge=0, examples=[4134])
    input_tokens_details: TokenDetails
    output_tokens_details: TokenDetails


class ImageData(ResponseModel):
    """An image, as `b64_json` or as `url`."""

    b64_json: AbsentIfNone[str] = Field(
        default=None,
        description="The image file in base64. Missing if URLs were asked for.",
        examples=["iVBORw0KGgo="],
    )
    url: AbsentIfNone[str] = Field(
        default=None,
        description="URL of the image file, valid until the job expires. Missing unless URLs were "
        "asked for.",
        examples=["http://localhost:8000/images/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b.png"],
    )
    seed: int = Field(description="Seed of the image. Not part of OpenAI's API.", examples=[42])


class Images(ResponseModel):
    """The images of a call. `job_id` and `warnings` are not part of OpenAI's API."""

    created: int = Field(description="Unix time in seconds when the images were finished.")
    data: list[ImageData]
    background: Literal["opaque"] = "opaque"
    output_format: ImageFormat
    quality: AbsentIfNone[AnsweredQuality] = Field(
        default=None, description="Missing if the request has `steps` but no `quality`."
    )
    size: str = Field(description="Actual size of the images.", examples=["1024x1024"])
    usage: Usage
    job_id: str = Field(
        description="Read the job with `GET /jobs/{job_id}`.", examples=[_EXAMPLE_ID]
    )
    warnings: list[str] = Field(
        description="What differs from the request, and advice on the prompt."
    )


class _Event(ResponseModel):
    type: str
    b64_json: str
    created_at: int
    size: str
    quality: str
    background: Literal["opaque"] = "opaque"
    output_format: str
    image_index: int
    job_id: str


class PartialImage(_Event):
    """A preview: a WebP file of an eighth of the final size. `size` is the final size."""

    partial_image_index: int


class CompletedImage(_Event):
    """A finished image. `usage` covers the whole call."""

    seed: int
    usage: Usage


def usage_of(job: Job, card: Card, tokenizers: Tokenizers | None) -> Usage:
    """Tokens that the call of a job used."""
    request = job.request
    texts = [request.prompt] + [request.negative_prompt] * (request.cfg_scale != 1)
    words = 0
    if tokenizers is not None:
        limit = card.text.token_limit
        words = sum(count_tokens(text, tokenizers, limit).qwen for text in texts)
    start = _latent_tokens(request.width, request.height, card) if request.init_image else 0
    made = sum(_latent_tokens(image.width, image.height, card) for image in job.images)
    return Usage(
        input_tokens=words + start,
        output_tokens=made,
        total_tokens=words + start + made,
        input_tokens_details=TokenDetails(image_tokens=start, text_tokens=words),
        output_tokens_details=TokenDetails(image_tokens=made, text_tokens=0),
    )


def _latent_tokens(width: int, height: int, card: Card) -> int:
    side = 2 * card.vae.scale_factor  # the transformer patches latents 2 x 2
    return (width // side) * (height // side)


def images_of(
    job: Job,
    files: Sequence[bytes] | None,
    *,
    url_of: Callable[[str], str],
    quality: str | None,
    usage: Usage,
    notes: Sequence[str],
) -> Images:
    """The response for a succeeded job; it has URLs if `files` is None."""
    if files is None:
        data = [ImageData(url=url_of(image.url), seed=image.seed) for image in job.images]
    else:
        data = [
            ImageData(b64_json=b64encode(file).decode("ascii"), seed=image.seed)
            for image, file in zip(job.images, files, strict=True)
        ]
    return Images(
        created=_finished(job),
        data=data,
        output_format=job.request.image_format,
        quality=QUALITIES.get(quality),
        size=_size(job.images[0]),
        usage=usage,
        job_id=job.id,
        warnings=[*notes, *(warning.detail for warning in job.warnings)],
    )


def completed_image(
    job: Job, index: int, file: bytes, *, kind: str, quality: str | None, usage: Usage
) -> CompletedImage:
    """The event for finished image number `index`."""
    image = job.images[index]
    return CompletedImage(
        type=f"{kind}.completed",
        b64_json=b64encode(file).decode("ascii"),
        created_at=_finished(job),
        size=_size(image),
        quality=QUALITIES.get(quality, "auto"),
        output_format=image.format,
        image_index=index,
        job_id=job.id,
        seed=image.seed,
        usage=usage,
    )


def _finished(job: Job) -> int:
    return int((job.finished_at or job.created_at).timestamp())


def _size(image: StoredImage) -> str:
    return f"{image.width}x{image.height}"

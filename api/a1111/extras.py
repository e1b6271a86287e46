"""Route `extra-single-image`: enlarges an image without the model."""

import asyncio
import html
import io
from base64 import b64encode
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Response
from fastapi.exceptions import RequestValidationError
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from api.a1111.errors import responses
from api.a1111.generation.ignored_fields import ignored, ignored_notes
from api.a1111.leniency import A1111Input, require_json_if_declared
from api.a1111.schemas import A1111Body
from api.submit.dependencies import RequestImages
from api.submit.images.conversion import to_rgb
from api.submit.images.decoding import ImageInfo, Size, size_text
from api.submit.submission_route import SubmissionRoute
from model.sampler_catalog import UPSCALER_DISPLAY_NAMES
from worker.images.metadata import GENERATED, png_chunks
from worker.images.size_limits import MAX_SIDE, size_problem

_FACES: Final = "faces are not restored"
_NONE: Final = "None"
_LANCZOS: Final = UPSCALER_DISPLAY_NAMES["lanczos"]
_COMPRESS_LEVEL: Final = 4

router = APIRouter(
    prefix="/sdapi/v1",
    tags=["a1111"],
    strict_content_type=False,
    route_class=SubmissionRoute,
)


def _check_upscaler(name: str) -> str:
    known = {one.lower(): one for one in (_NONE, _LANCZOS)}
    if name.lower() not in known:
        raise PydanticCustomError(
            "unknown_upscaler",
            "upscaler not found; this service has {names}",
            {"names": f"{_NONE} and {_LANCZOS}", "allowed": [_NONE, _LANCZOS]},
        )
    return known[name.lower()]


Upscaler = Annotated[str, AfterValidator(_check_upscaler)]


class A1111Extras(A1111Input):
    """An image and the size that it should get. Unknown fields are ignored."""

    image: str = Field(
        description="PNG, JPEG, WebP or AVIF, as base64 or as a data URL, or an image of this "
        "service.",
        examples=["iVBORw0KGgo…"],
    )
    resize_mode: int = Field(
        default=0, ge=0, le=1, description="0: enlarge by a factor; 1: to a size.", examples=[0]
    )
    upscaling_resize: float = Field(
        default=2, ge=1, le=8, description="The factor of mode 0.", examples=[2]
    )
    upscaling_resize_w: int = Field(
        default=512, ge=1, le=MAX_SIDE, description="The width of mode 1.", examples=[512]
    )
    upscaling_resize_h: int = Field(
        default=512, ge=1, le=MAX_SIDE, description="The height of mode 1.", examples=[512]
    )
    upscaling_crop: bool = Field(
        default=True,
        description="Mode 1: crop to exactly this size; otherwise the image covers it.",
        examples=[True],
    )
    upscaler_1: Upscaler = Field(
        default=_NONE, description="`Lanczos`, or `None`: keep the size.", examples=["Lanczos"]
    )
    upscaler_2: Upscaler = Field(
        default=_NONE, description="Blended with the first; both are Lanczos.", examples=["None"]
    )
    extras_upscaler_2_visibility: float = Field(
        default=0, ge=0, le=1, description="How much of `upscaler_2` is used.", examples=[0]
    )
    gfpgan_visibility: float | None = ignored(0, reason=_FACES)
    codeformer_visibility: float | None = ignored(0, reason=_FACES)

    @model_validator(mode="before")
    @classmethod
    def _drop_unused_fields(cls, body: Any) -> Any:
        """Null and "" mean the default; an upscaler that is not blended in has no effect."""
        if not isinstance(body, dict):
            return body
        given = {name: value for name, value in body.items() if value is not None and value != ""}
        if not given.get("extras_upscaler_2_visibility"):
            given.pop("upscaler_2", None)
        return given


class A1111Enlarged(A1111Body):
    """The enlarged image."""

    html_info: str = Field(
        description="What was done, as HTML.", examples=["<p>Lanczos: 512x512 to 1024x1024</p>"]
    )
    image: str = Field(description="A PNG in base64.", examples=["iVBORw0KGgo…"])
    warnings: list[str] = Field(description="What was not done.", examples=[[]])


@router.post(
    "/extra-single-image",
    operation_id="a1111EnlargeImage",
    summary="Enlarge an image",
    response_class=Response,
    dependencies=[Depends(require_json_if_declared)],
    responses={200: {"model": A1111Enlarged}, **responses(400, 401, 403, 413, 415, 422, 429, 503)},
)
async def enlarge_image(body: A1111Extras, input_images: RequestImages) -> Response:
    """Enlarge an image with the Lanczos filter. The model is not used and no job is made.

    The result keeps the generation parameters and the mark of AI-made images. To let the model draw
    the details of a larger image, use `img2img`, or `enable_hr`.
    """
    file, sizes = await input_images.with_image(
        "image", body.image, lambda image, info: _enlarge(image, info, body)
    )
    content = await asyncio.to_thread(_answer, file, sizes, body)  # megabytes of base64
    return Response(content, media_type="application/json")


def _enlarge(image: Image.Image, info: ImageInfo, body: A1111Extras) -> tuple[bytes, str]:
    """The file of the enlarged image, and what was done."""
    size = _size(image.size, body)
    image = to_rgb(image)
    enlarged = image
    if size != image.size:
        enlarged = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    done = f"{body.upscaler_1}: {size_text(image.size)} to {size_text(size)}"
    buffer = io.BytesIO()
    enlarged.save(buffer, "PNG", compress_level=_COMPRESS_LEVEL, pnginfo=_texts(info))
    return buffer.getvalue(), done


def _size(size: Size, body: A1111Extras) -> Size:
    """The size of the result; raises RequestValidationError if it is too large."""
    if body.upscaler_1 == _NONE:
        return size
    wanted = body.upscaling_resize_w, body.upscaling_resize_h
    field, factor = "upscaling_resize", body.upscaling_resize
    if body.resize_mode == 1:
        if body.upscaling_crop:
            return _checked(wanted, "upscaling_resize_w")
        field = "upscaling_resize_w"
        factor = max(wanted[0] / size[0], wanted[1] / size[1])
    return _checked((max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), field)


def _checked(size: Size, field: str) -> Size:
    problem = size_problem(*size)
    if problem is None:
        return size
    reason, limit = problem
    error = {"type": "value_error", "loc": ("body", field), "input": None, "ctx": {"le": limit}}
    raise RequestValidationError([{**error, "msg": f"the result would be too large: {reason}"}])


def _texts(info: ImageInfo) -> PngInfo:
    """The generation parameters and the mark of the image, if it has them.

    The recipe is left out: it would not lead to this image.
    """
    mark = info.texts.mark
    return png_chunks(info.texts.infotext, None, mark if mark in GENERATED else None)


def _answer(file: bytes, done: str, body: A1111Extras) -> str:
    warnings = [*ignored_notes(body)]
    if body.upscaler_1 == _NONE:
        warnings.append(f"upscaler_1 is {_NONE}: the size is kept; {_LANCZOS} enlarges")
    told = "".join(f"<p>{html.escape(text)}</p>" for text in (done, *warnings))
    image = b64encode(file).decode("ascii")
    return A1111Enlarged(html_info=told, image=image, warnings=warnings).model_dump_json()

"""Route `png-info`: reads the generation parameters stored in an image file."""

from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from api.a1111.errors import responses
from api.a1111.schemas import A1111Body
from api.submit.dependencies import RequestImages
from model.recipes.infotext import parse_parameters
from worker.images.metadata import DOCUMENT_KEY

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])


class A1111PngInfoRequest(A1111Body):
    """The image to read."""

    image: str = Field(
        description="PNG, JPEG, WebP or AVIF, as base64 or as a data URL.",
        examples=["iVBORw0KGgo…"],
    )


class A1111PngInfo(A1111Body):
    """The generation parameters found in the image."""

    info: str = Field(
        description='The `parameters` text; "" if the file has none.',
        examples=["1girl\nNegative prompt: \nSteps: 30, Sampler: ER SDE, Seed: 42, Size: 832x1216"],
    )
    items: dict[str, Any] = Field(
        description="Other metadata texts of the file, by keyword.", examples=[{}]
    )
    parameters: dict[str, Any] = Field(
        description="`info` split into its fields; all values are strings.",
        examples=[{"Prompt": "1girl", "Steps": "30", "Size-1": "832", "Size-2": "1216"}],
    )


@router.post(
    "/png-info",
    operation_id="a1111PngInfo",
    summary="Read the generation parameters of an image",
    responses=responses(400, 401, 413, 422, 503),
)
async def png_info(body: A1111PngInfoRequest, input_images: RequestImages) -> A1111PngInfo:
    """Read the text that web UIs write into PNG, JPEG, WebP and AVIF files.

    `items` has other metadata: the document of this service as `kirazuri`, the ComfyUI graph as
    `prompt`. The image is not stored.
    """
    found = (await input_images.read_info("image", body.image)).texts
    parameters: dict[str, str] = {}
    with suppress(ValueError):  # too long for an infotext
        parameters = parse_parameters(found.infotext) if found.infotext else {}
    others = {DOCUMENT_KEY: found.document, "prompt": found.workflow}
    return A1111PngInfo(
        info=found.infotext or "",
        items={key: text for key, text in others.items() if text},
        parameters=parameters,
    )

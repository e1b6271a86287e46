"""`png-info`: the `parameters` text inside a picture, of this service or of another web UI."""

from contextlib import suppress

from fastapi import APIRouter

from api.a1111.response import responses
from api.a1111.schemas import A1111PngInfo, A1111PngInfoRequest
from api.submit.dependencies import RequestImages
from model.recipes.infotext import parameters_of
from worker.images.metadata import DOCUMENT_KEY

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])


@router.post(
    "/png-info",
    operation_id="a1111PngInfo",
    summary="What a picture says of how it was made",
    responses=responses(400, 401, 413, 422, 503),
)
async def png_info(body: A1111PngInfoRequest, pictures: RequestImages) -> A1111PngInfo:
    """The text that web UIs write into PNG, JPEG, WebP and AVIF, whole and taken apart.

    `items` has what else was found: this service's own document as `kirazuri`, ComfyUI's graph as
    `prompt`. Nothing of the picture is kept.
    """
    inside = (await pictures.read_info("image", body.image)).texts
    parameters: dict[str, str] = {}
    with suppress(ValueError):  # longer than anything that is one
        parameters = parameters_of(inside.infotext) if inside.infotext else {}
    others = {DOCUMENT_KEY: inside.document, "prompt": inside.workflow}
    return A1111PngInfo(
        info=inside.infotext or "",
        items={key: text for key, text in others.items() if text},
        parameters=parameters,
    )

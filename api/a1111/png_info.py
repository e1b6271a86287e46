"""Route `png-info`: reads the generation parameters stored in an image file."""

import asyncio
import dataclasses
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import Field

from api.a1111.errors import responses
from api.a1111.leniency import A1111Input, require_json_if_declared
from api.a1111.schemas import A1111Body
from api.submit.dependencies import RequestImages
from api.submit.submission_route import SubmissionRoute
from model.recipes.infotext import infotext_of
from model.recipes.infotext_syntax import parse_parameters
from worker.images.metadata import DOCUMENT_KEY, ImageTexts, find_recipe

router = APIRouter(
    prefix="/sdapi/v1",
    tags=["a1111"],
    strict_content_type=False,
    route_class=SubmissionRoute,
)


class A1111PngInfoRequest(A1111Input):
    """The image to read."""

    image: str = Field(
        description="PNG, JPEG, WebP or AVIF, as base64 or as a data URL. Nothing is found in an "
        "empty text.",
        examples=["iVBORw0KGgo…"],
    )


class A1111PngInfo(A1111Body):
    """The generation parameters found in the image."""

    info: str = Field(
        description='The `parameters` text, or what another program wrote in this form; "" if '
        "the file has none.",
        examples=["1girl\nNegative prompt: \nSteps: 30, Sampler: ER SDE, Seed: 42, Size: 832x1216"],
    )
    items: dict[str, Any] = Field(
        description="Other metadata texts of the file, by keyword. `notes` lists what `info` does "
        "not say of another program's text.",
        examples=[{}],
    )
    parameters: dict[str, Any] = Field(
        description="`info` split into its fields; all values are strings.",
        examples=[{"Prompt": "1girl", "Steps": "30", "Size-1": "832", "Size-2": "1216"}],
    )


@router.post(
    "/png-info",
    operation_id="a1111PngInfo",
    summary="Read the generation parameters of an image",
    dependencies=[Depends(require_json_if_declared)],
    responses=responses(400, 401, 403, 413, 415, 422, 429, 503),
)
async def png_info(body: A1111PngInfoRequest, input_images: RequestImages) -> A1111PngInfo:
    """Read the text that web UIs and other programs write into PNG, JPEG, WebP and AVIF files.

    The texts of SwarmUI, InvokeAI, NovelAI, Fooocus, Draw Things and ComfyUI are written as
    infotext; `items` has them as they are, under the name of the program. It also has the document
    of this service as `kirazuri` and the ComfyUI graph as `prompt`. The image is not stored.
    """
    if not body.image.strip():
        return A1111PngInfo(info="", items={}, parameters={})
    found = (await input_images.read_info("image", body.image)).texts
    return await asyncio.to_thread(_describe, found)


def _describe(texts: ImageTexts) -> A1111PngInfo:
    """Describe the texts of a file."""
    info, items = texts.infotext or "", {DOCUMENT_KEY: texts.document, "prompt": texts.workflow}
    parameters: dict[str, str] = {}
    try:
        parameters = parse_parameters(info)
    except ValueError:  # not an infotext
        foreign = dataclasses.replace(texts, document=None)
        with suppress(ValueError, RecursionError):
            if recipe := find_recipe(foreign):
                name = "prompt" if recipe.kind == "comfyui" else recipe.kind
                items |= {name: recipe.text, "notes": "\n".join(recipe.imported.notes)}
                info = infotext_of(recipe.imported)
                parameters = parse_parameters(info)
    return A1111PngInfo(
        info=info,
        items={key: text for key, text in items.items() if text},
        parameters=parameters,
    )

"""Route `options`: the web UI settings that have a meaning here. No client can change them."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from pydantic import BeforeValidator, Field

from api.a1111.checkpoint import check_checkpoint, checkpoint_title, worker_recipe
from api.a1111.errors import responses
from api.a1111.leniency import read_object, require_json_if_declared
from api.a1111.schemas import A1111Body, A1111Done
from api.submit.dependencies import Queue, ServiceCard

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], strict_content_type=False)

_SETTINGS = Body(
    description="Any settings; all but `sd_model_checkpoint` are ignored.",
    examples=[{"sd_model_checkpoint": "kirazuri-v1"}],
)


class A1111Options(A1111Body):
    """Settings of the web UI that have a meaning here. They cannot be changed."""

    sd_model_checkpoint: str = Field(
        description="`title` of the checkpoint.", examples=["kirazuri-anima-v1.safetensors"]
    )
    sd_checkpoint_hash: str = Field(
        description='SHA-256 of the checkpoint; "" while no worker is running.',
        examples=["9f86d081884c7d65…"],
    )
    sd_vae: str = Field(
        default="Automatic", description="Always `Automatic`.", examples=["Automatic"]
    )
    CLIP_stop_at_last_layers: int = Field(  # spelled as in the web UI
        default=1, description="Always 1.", examples=[1]
    )
    samples_format: str = Field(
        default="png",
        description="Image format. `override_settings` of a call may set `jpg`, `webp` or `avif`.",
        examples=["png"],
    )
    jpeg_quality: int = Field(
        default=90,
        description="Quality of lossy formats. `override_settings` of a call may change it.",
        examples=[90],
    )
    live_previews_enable: bool = Field(
        default=True,
        description="Whether jobs have previews. `override_settings` of a call may change it.",
        examples=[True],
    )
    live_previews_image_format: str = Field(
        default="webp", description="Format of `current_image`.", examples=["webp"]
    )


@router.get(
    "/options",
    operation_id="a1111GetOptions",
    summary="Get the settings",
    responses=responses(401),
)
async def get_options(card: ServiceCard, queue: Queue) -> A1111Options:
    """The settings of the web UI that have a meaning here."""
    return A1111Options(
        sd_model_checkpoint=checkpoint_title(card),
        sd_checkpoint_hash=(await worker_recipe(queue)).checkpoint,
    )


@router.post(
    "/options",
    operation_id="a1111SetOptions",
    summary="Accept settings without changing any",
    dependencies=[Depends(require_json_if_declared)],
    responses=responses(400, 401, 404, 413, 415, 422),
)
async def set_options(
    options: Annotated[dict[str, Any], BeforeValidator(read_object), _SETTINGS], card: ServiceCard
) -> A1111Done:
    """Nothing changes, because clients share the service.

    Clients send all settings back to change one. A checkpoint other than the loaded one is refused.
    To change a setting for one call, use `override_settings` of that call.
    """
    wanted = options.get("sd_model_checkpoint")
    if isinstance(wanted, str) and wanted:
        check_checkpoint(wanted, card)
    return A1111Done()

"""Routes that list the checkpoint, samplers, schedules, upscalers and LoRAs.

They also work while Redis is unavailable; only the hashes are missing then.
"""

from collections.abc import Sequence

from fastapi import APIRouter

from api.a1111.checkpoint import checkpoint_title, worker_recipe
from api.a1111.errors import responses
from api.a1111.lists.schemas import (
    A1111Lora,
    A1111Model,
    A1111Module,
    A1111Named,
    A1111Sampler,
    A1111Scheduler,
    A1111Upscaler,
)
from api.submit.dependencies import CurrentCaller, Loras, Queue, ServiceCard
from model.card import WeightFile
from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, UPSCALER_DISPLAY_NAMES

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])


@router.get(
    "/sd-models",
    operation_id="a1111ListModels",
    summary="List the checkpoint",
    responses=responses(401),
)
async def list_models(card: ServiceCard, queue: Queue) -> list[A1111Model]:
    """The loaded checkpoint. Its hashes are null until a worker is running."""
    digest = (await worker_recipe(queue)).checkpoint or card.files.transformer.sha256
    return [
        A1111Model(
            title=checkpoint_title(card),
            model_name=card.name,
            hash=digest and digest[:10],
            sha256=digest,
            filename=card.files.transformer.path,
            config=None,
        )
    ]


@router.get(
    "/samplers",
    operation_id="a1111ListSamplers",
    summary="List samplers",
    responses=responses(401),
)
async def list_samplers(card: ServiceCard) -> list[A1111Sampler]:
    """The samplers that the checkpoint supports, its default first."""
    default = card.defaults.sampler
    names = [default, *(name for name in card.samplers if name != default)]
    return [
        A1111Sampler(name=SAMPLER_CATALOG[name].display_name, aliases=[name], options={})
        for name in names
    ]


@router.get(
    "/schedulers",
    operation_id="a1111ListSchedulers",
    summary="List noise schedules",
    responses=responses(401),
)
async def list_schedulers(card: ServiceCard) -> list[A1111Scheduler]:
    """`automatic`, which is the default of the checkpoint, and all noise schedules."""
    labels = {"automatic": "Automatic"}
    labels |= {name: SCHEDULE_DISPLAY_NAMES[name] for name in card.schedulers}
    return [A1111Scheduler(name=name, label=label) for name, label in labels.items()]


@router.get(
    "/upscalers",
    operation_id="a1111ListUpscalers",
    summary="List upscalers",
    responses=responses(401),
)
async def list_upscalers() -> list[A1111Upscaler]:
    """Upscalers for the second pass, with `None` first as in the web UI."""
    return [A1111Upscaler(name=name) for name in ("None", UPSCALER_DISPLAY_NAMES["lanczos"])]


@router.get(
    "/latent-upscale-modes",
    operation_id="a1111ListLatentUpscaleModes",
    summary="List latent upscalers",
    responses=responses(401),
)
async def list_latent_upscale_modes() -> list[A1111Named]:
    """The one latent upscaler for the second pass."""
    return [A1111Named(name=UPSCALER_DISPLAY_NAMES["latent"])]


def _modules(files: Sequence[WeightFile]) -> list[A1111Module]:
    return [
        A1111Module(model_name=file.path.rpartition("/")[2], filename=file.path) for file in files
    ]


@router.get(
    "/sd-vae", operation_id="a1111ListVaes", summary="List the VAE", responses=responses(401)
)
async def list_vaes(card: ServiceCard) -> list[A1111Module]:
    """The VAE of the checkpoint, which is always used."""
    return _modules([card.files.vae])


@router.get(
    "/sd-modules",
    operation_id="a1111ListModules",
    summary="List the VAE and the text encoder",
    responses=responses(401),
)
async def list_modules(card: ServiceCard) -> list[A1111Module]:
    """The same modules as Forge lists. Both are always used."""
    return _modules([card.files.vae, card.files.text_encoder])


@router.get("/loras", operation_id="a1111ListLoras", summary="List LoRAs", responses=responses(401))
async def list_loras(card: ServiceCard, loras: Loras, caller: CurrentCaller) -> list[A1111Lora]:
    """LoRAs for `<lora:name:weight>` in a prompt. The folder of a name may be omitted."""
    return [
        A1111Lora(
            name=lora.name,
            alias=lora.alias or lora.name,
            path=f"{lora.name}.safetensors",
            metadata={
                "sha256": lora.sha256,
                "base": lora.base,
                "trigger_words": lora.trigger_words,
            },
        )
        for lora in await loras.descriptions(card, caller.limits.loras)
    ]

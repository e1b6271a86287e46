"""What the A1111 surface offers to choose from, and its settings, of which a client changes none.

Answers without Redis too; hashes and memory come from the workers and are missing then.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Body

from api.a1111.list_schemas import (
    A1111Embeddings,
    A1111Flags,
    A1111Lora,
    A1111Memory,
    A1111Model,
    A1111Module,
    A1111Named,
    A1111Options,
    A1111Sampler,
    A1111Scheduler,
    A1111Scripts,
    A1111Upscaler,
)
from api.a1111.model_names import check_checkpoint, checkpoint_title
from api.a1111.response import responses
from api.a1111.schemas import A1111Done
from api.submit.dependencies import CurrentCaller, Loras, Queue, ServiceCard
from model.card import WeightFile
from model.recipes.recipe import Recipe
from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, UPSCALER_DISPLAY_NAMES
from worker.errors import QueueUnavailable
from worker.queue.job_queue import JobQueue

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])
_OPTIONS = Body(
    description="Any of the settings; all but `sd_model_checkpoint` are ignored.",
    examples=[{"sd_model_checkpoint": "kirazuri-v1"}],
)


async def _recipe(queue: JobQueue) -> Recipe:
    """What a worker says of its files; empty while none does."""
    with suppress(QueueUnavailable):
        for worker in await queue.workers():
            if worker.recipe:
                return worker.recipe
    return Recipe()


@router.get(
    "/options",
    operation_id="a1111GetOptions",
    summary="Settings",
    responses=responses(401),
)
async def get_options(card: ServiceCard, queue: Queue) -> A1111Options:
    """The settings of the web UI that mean something here."""
    return A1111Options(
        sd_model_checkpoint=checkpoint_title(card),
        sd_checkpoint_hash=(await _recipe(queue)).checkpoint,
    )


@router.post(
    "/options",
    operation_id="a1111SetOptions",
    summary="Accept settings, and change none",
    responses=responses(400, 401, 404, 413, 422),
)
async def set_options(options: Annotated[dict[str, Any], _OPTIONS], card: ServiceCard) -> A1111Done:
    """Nothing is changed: clients share the service.

    Clients send all settings back to change one. A checkpoint that is not this one is refused.
    What `override_settings` of a call says holds for that call.
    """
    wanted = options.get("sd_model_checkpoint")
    if isinstance(wanted, str) and wanted:
        check_checkpoint(wanted, card)
    return A1111Done()


@router.get(
    "/sd-models",
    operation_id="a1111ListModels",
    summary="The checkpoint",
    responses=responses(401),
)
async def list_models(card: ServiceCard, queue: Queue) -> list[A1111Model]:
    """There is one; its hashes are known once a worker is up."""
    digest = (await _recipe(queue)).checkpoint or card.files.transformer.sha256
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
    summary="Samplers",
    responses=responses(401),
)
async def list_samplers(card: ServiceCard) -> list[A1111Sampler]:
    """Those of the checkpoint, its default first."""
    default = card.defaults.sampler
    names = [default, *(name for name in card.samplers if name != default)]
    return [
        A1111Sampler(name=SAMPLER_CATALOG[name].display_name, aliases=[name], options={})
        for name in names
    ]


@router.get(
    "/schedulers",
    operation_id="a1111ListSchedulers",
    summary="Noise schedules",
    responses=responses(401),
)
async def list_schedulers(card: ServiceCard) -> list[A1111Scheduler]:
    """`automatic`, which is the checkpoint's default, and all there are."""
    labels = {"automatic": "Automatic"}
    labels |= {name: SCHEDULE_DISPLAY_NAMES[name] for name in card.schedulers}
    return [A1111Scheduler(name=name, label=label) for name, label in labels.items()]


@router.get(
    "/upscalers",
    operation_id="a1111ListUpscalers",
    summary="What enlarges a picture before its second pass",
    responses=responses(401),
)
async def list_upscalers() -> list[A1111Upscaler]:
    """`None` stands first, as with the web UI."""
    return [A1111Upscaler(name=name) for name in ("None", UPSCALER_DISPLAY_NAMES["lanczos"])]


@router.get(
    "/latent-upscale-modes",
    operation_id="a1111ListLatentUpscaleModes",
    summary="What enlarges latents before the second pass",
    responses=responses(401),
)
async def list_latent_upscale_modes() -> list[A1111Named]:
    """There is one."""
    return [A1111Named(name=UPSCALER_DISPLAY_NAMES["latent"])]


def _modules(files: Sequence[WeightFile]) -> list[A1111Module]:
    return [
        A1111Module(model_name=file.path.rpartition("/")[2], filename=file.path) for file in files
    ]


@router.get("/sd-vae", operation_id="a1111ListVaes", summary="The VAE", responses=responses(401))
async def list_vaes(card: ServiceCard) -> list[A1111Module]:
    """There is one, and it is always used."""
    return _modules([card.files.vae])


@router.get(
    "/sd-modules",
    operation_id="a1111ListModules",
    summary="VAE and text encoder",
    responses=responses(401),
)
async def list_modules(card: ServiceCard) -> list[A1111Module]:
    """As Forge lists them; both are always used."""
    return _modules([card.files.vae, card.files.text_encoder])


@router.get("/loras", operation_id="a1111ListLoras", summary="LoRAs", responses=responses(401))
async def list_loras(card: ServiceCard, loras: Loras, caller: CurrentCaller) -> list[A1111Lora]:
    """For `<lora:name:weight>` in a prompt; the folder may be left out of a name."""
    return [
        A1111Lora(
            name=lora.name,
            alias=lora.name,
            path=f"{lora.name}.safetensors",
            metadata={
                "sha256": lora.sha256,
                "base": lora.base,
                "trigger_words": lora.trigger_words,
            },
        )
        for lora in await loras.descriptions(card, caller.limits.loras)
    ]


@router.get(
    "/embeddings",
    operation_id="a1111ListEmbeddings",
    summary="Textual inversions: none",
    responses=responses(401),
)
async def list_embeddings() -> A1111Embeddings:
    """Always empty."""
    return A1111Embeddings(loaded={}, skipped={})


@router.get(
    "/scripts", operation_id="a1111ListScripts", summary="Scripts: none", responses=responses(401)
)
async def list_scripts() -> A1111Scripts:
    """Always empty."""
    return A1111Scripts(txt2img=[], img2img=[])


@router.get(
    "/cmd-flags",
    operation_id="a1111Flags",
    summary="How the service was started",
    responses=responses(401),
)
async def get_flags() -> A1111Flags:
    """Only what clients look for."""
    return A1111Flags()


@router.get(
    "/memory",
    operation_id="a1111Memory",
    summary="Memory: not told here",
    responses=responses(401),
)
async def get_memory() -> A1111Memory:
    """What the web UI says where it knows nothing; the workers' is in `/metrics`."""
    unknown = {"error": "unavailable"}
    return A1111Memory(ram=unknown, cuda=unknown)


def _add_empty_lists() -> None:
    """Lists that clients ask for at their start and that have nothing here."""
    for path, operation, what in (
        ("prompt-styles", "a1111ListStyles", "Styles"),
        ("hypernetworks", "a1111ListHypernetworks", "Hypernetworks"),
        ("face-restorers", "a1111ListFaceRestorers", "Face restorers"),
        ("realesrgan-models", "a1111ListRealesrganModels", "Models of Real-ESRGAN"),
    ):
        router.add_api_route(
            f"/{path}",
            _nothing,
            methods=["GET"],
            operation_id=operation,
            summary=f"{what}: none",
            responses=responses(401),
        )


async def _nothing() -> list[A1111Named]:
    """Always empty."""
    return []


def _add_refreshes() -> None:
    """What clients call before they list anew; lists are new every time here."""
    for path, operation in (
        ("refresh-checkpoints", "a1111RefreshCheckpoints"),
        ("refresh-vae", "a1111RefreshVae"),
        ("refresh-loras", "a1111RefreshLoras"),
        ("refresh-embeddings", "a1111RefreshEmbeddings"),
    ):
        router.add_api_route(
            f"/{path}",
            _refreshed,
            methods=["POST"],
            operation_id=operation,
            summary="Nothing to do: lists are always new",
            responses=responses(401),
        )


async def _refreshed() -> A1111Done:
    """Nothing to do."""
    return A1111Done()


_add_empty_lists()
_add_refreshes()

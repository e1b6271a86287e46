"""`GET /capabilities`: choices, limits and features, for clients that build a form."""

from typing import Literal, get_args

from fastapi import APIRouter

from api.http.error_handlers import problem_responses
from api.http.service_schemas import (
    Capabilities,
    Features,
    LoraDescription,
    QualityChoice,
    RefusedLora,
    SamplerChoice,
    SamplerOption,
    SchedulerChoice,
    SeedRange,
    WorkerChoice,
)
from api.submit.dependencies import (
    CurrentCaller,
    Loras,
    PromptTokenizers,
    Queue,
    ServiceCard,
    ServiceSettings,
)
from api.submit.images.decoding import INPUT_FORMATS
from api.webhooks.schemas import metadata_levels
from model.card import Card, QualityAdvice
from model.request import MAX_SEED, ImageFormat, Upscaler
from model.sampler_catalog import (
    QUALITY_CATALOG,
    SAMPLER_CATALOG,
    SCHEDULE_DISPLAY_NAMES,
    OptionInfo,
    Quality,
    evaluations,
)
from worker.errors import QueueUnavailable
from worker.images.size_limits import MAX_PIXELS, MAX_RATIO, MAX_SIDE
from worker.job import WorkerStatus
from worker.settings import Settings

router = APIRouter(tags=["service"])


@router.get(
    "/capabilities",
    operation_id="getCapabilities",
    summary="Get choices, limits and features",
    responses=problem_responses(),
)
async def get_capabilities(
    card: ServiceCard,
    settings: ServiceSettings,
    queue: Queue,
    tokenizers: PromptTokenizers,
    loras: Loras,
    caller: CurrentCaller,
) -> Capabilities:
    """Get the checkpoint's card, choices and limits of requests, features, and live workers.

    `workers` is empty if Redis does not answer.
    """
    try:
        workers = await queue.state.workers()
    except QueueUnavailable:
        workers = []
    lora_descriptions = await loras.descriptions(card, caller.limits.loras)
    return capabilities(
        card,
        settings,
        workers,
        loras=lora_descriptions,
        refused_loras=loras.refused(caller.limits.loras),
        has_tokenizers=tokenizers is not None,
    )


def capabilities(
    card: Card,
    settings: Settings,
    workers: list[WorkerStatus],
    *,
    loras: list[LoraDescription],
    refused_loras: list[RefusedLora],
    has_tokenizers: bool,
) -> Capabilities:
    """Combine the card with the sampler catalog and the settings."""
    return Capabilities(
        name=card.name,
        title=card.title,
        version=card.version,
        summary=card.summary,
        base_model=card.base_model,
        licence=card.licence,
        resolutions=list(card.resolutions),
        samplers=_samplers(card),
        schedulers=[
            SchedulerChoice(
                name=name,
                title=SCHEDULE_DISPLAY_NAMES[name],
                is_recommended=name in (card.recommended_schedulers or card.schedulers),
                note=card.scheduler_notes.get(name, ""),
            )
            for name in card.schedulers
        ],
        qualities=_qualities(card),
        limits=card.limits,
        seed=SeedRange(minimum=0, maximum=MAX_SEED),
        defaults=card.defaults,
        recommended_cfg_scale=card.recommended_cfg_scale,
        prompting=card.prompting,
        limitations=list(card.limitations),
        training=card.training,
        formats=list(get_args(ImageFormat)),
        loras=loras,
        refused_loras=refused_loras,
        features=_features(settings, has_tokenizers=has_tokenizers),
        workers=[
            WorkerChoice(**worker.model_dump(include=set(WorkerChoice.model_fields)))
            for worker in workers
        ],
    )


def _features(settings: Settings, *, has_tokenizers: bool) -> Features:
    return Features(
        events=True,
        cancel=True,
        idempotency=True,
        previews=True,
        deterministic=True,
        replay=True,
        tags=True,
        dry_run=True,
        token_counts=has_tokenizers,
        webhooks=settings.webhook_secret is not None,
        prefer_wait_seconds=settings.max_wait_seconds,
        metadata=metadata_levels(settings),
        max_body_bytes=settings.max_body_bytes,
        input_formats=[name.lower() for name in INPUT_FORMATS],
        max_input_pixels=MAX_PIXELS,
        max_input_side=MAX_SIDE,
        max_input_ratio=MAX_RATIO,
        upscalers=list(get_args(Upscaler)),
    )


def _samplers(card: Card) -> list[SamplerChoice]:
    return [
        SamplerChoice(
            name=name,
            title=SAMPLER_CATALOG[name].display_name,
            default_steps=advice.default_steps,
            recommended_steps=advice.recommended_steps,
            evaluations=evaluations(name, card.defaults.scheduler, advice.default_steps),
            is_stochastic=SAMPLER_CATALOG[name].is_stochastic,
            is_recommended=advice.is_recommended,
            note=advice.note,
            options=[_option(key, option) for key, option in SAMPLER_CATALOG[name].options.items()],
        )
        for name, advice in card.samplers.items()
    ]


def _qualities(card: Card) -> list[QualityChoice]:
    sampler, scheduler = card.defaults.sampler, card.defaults.scheduler
    of_exact = evaluations(sampler, scheduler, card.samplers[sampler].default_steps)
    exact = QualityAdvice(samplers=tuple(card.samplers), note="")
    offered: dict[Quality, QualityAdvice] = {"exact": exact, **card.qualities}
    return [
        QualityChoice(
            name=name,
            work=round(QUALITY_CATALOG[name].asked(of_exact) / of_exact, 2),
            samplers=list(advice.samplers),
            float8_samplers=list(advice.float8_samplers),
            note=advice.note,
        )
        for name, advice in offered.items()
    ]


_OPTION_TYPES: dict[type, Literal["boolean", "integer", "number", "string"]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
}


def _option(name: str, option: OptionInfo) -> SamplerOption:
    return SamplerOption(
        name=name,
        type=_OPTION_TYPES[type(option.default)],
        default=option.default,
        minimum=option.minimum,
        maximum=option.maximum,
        choices=list(option.choices),
        description=option.description,
    )

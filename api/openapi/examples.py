"""Example objects for the OpenAPI document: one consistent set for each card.

They are built from the models that they illustrate, so that every example is valid.
"""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from api.http.job_schemas import JobLinks, JobList, JobView, job_view
from api.http.problem import FieldError, Problem
from api.http.problem_types import VALIDATION_FAILED
from api.http.service_schemas import LoraDescription, SamplerOption
from api.routes.images.verification import CredentialClaim, Maker, RecipeClaim, Verification
from api.submit.advice import Advice
from api.submit.dry_run import Plan, make_plan
from api.webhooks.schemas import WebhookMessage, WebhookRequest
from model.card import Card
from model.card_request import request_type
from model.prompting.tokens import TokenCount
from model.recipes.recipe import Recipe
from model.request import GenerationRequest
from model.resolved_request import InputNames, ResolvedRequest, resolve_request
from model.sampler_catalog import SAMPLER_CATALOG
from model.tags import Tags
from worker.images.metadata import TRAINED
from worker.job import Job, JobWarning, Progress, StoredImage, Timings
from worker.queue.eta import Eta
from worker.webhook import JobWebhook, WebhookDelivery

_BASE_URL = "http://localhost:8000"
_JOB_ID = "01JD6Z1Q8M4T0V7C2N5K9R3XWB"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_IMAGE = f"{_SHA256[:40]}.png"
_TOKEN = "1795438800.655857b9f6c28a89.pJYqUu2m6q8h6xYcW0m6l7Yp1rZ2gqk1o2vQe3x4h5A"  # noqa: S105 - signs nothing
_LORA = "watercolor"
_CREATED_AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
_FINISHED_AT = _CREATED_AT + timedelta(seconds=3.1)
_WEBHOOK = WebhookRequest(url="https://example.org/hooks/kirazuri", events=["succeeded", "failed"])


def examples(card: Card) -> list[BaseModel]:
    """Examples of everything that a client sends or reads; they contain the nested models."""
    request = _request(card)
    resolved = _resolved(request, card)
    job = job_view(_job(resolved, card), _BASE_URL)
    message = WebhookMessage(type="job.succeeded", timestamp=_FINISHED_AT, data=job)
    return [
        request,
        _WEBHOOK,
        job,
        JobList(items=[job], next=_JOB_ID),
        _job_links(job),
        message,
        plan_example(card),
        _verification(job),
        _problem(),
        _lora(card),
        SamplerOption(
            name="eta",
            type="number",
            default=1.0,
            minimum=0.0,
            maximum=1.0,
            choices=[],
            description="Share of stochasticity: 0 is the equation without noise.",
        ),
    ]


def plan_example(card: Card) -> Plan:
    """The plan that a dry run of the example request returns."""
    limit = card.text.token_limit
    tokens = {
        "prompt": TokenCount(qwen=38, t5=41, limit=limit),
        "negative_prompt": TokenCount(qwen=0, t5=1, limit=limit),
    }
    times = Eta(queue_position=2, waiting_seconds=18.2, own_seconds=9.1)
    return make_plan(
        _resolved(_request(card), card), Advice((_warning(),), tokens), times, seed=None
    )


def _request(card: Card) -> GenerationRequest:
    defaults, catalog = card.defaults, SAMPLER_CATALOG[card.defaults.sampler]
    return request_type(card, lambda: [_LORA]).model_validate(
        {
            "tags": Tags(
                quality=list(card.prompting.quality[:2]),
                subject=list(card.prompting.subject[:1]),
                general=["long_hair", "smile"],
            ),
            "prompt": card.prompting.example,
            "negative_prompt": defaults.negative_prompt,
            "resolution": card.resolutions[0].name,
            "steps": card.samplers[defaults.sampler].default_steps,
            "cfg_scale": defaults.cfg_scale,
            "sampler": defaults.sampler,
            "sampler_options": {name: option.default for name, option in catalog.options.items()},
            "scheduler": defaults.scheduler,
            "seed": 42,
            "init_image": _IMAGE,
            "strength": defaults.strength,
            "mask": _IMAGE,
            "hires": {"scale": 1.5, "steps": 10, "strength": defaults.hires_strength},
            "loras": [{"name": _LORA, "weight": 0.8}],
        }
    )


def _resolved(request: GenerationRequest, card: Card) -> ResolvedRequest:
    preset = card.resolutions[0]
    return resolve_request(
        request.model_copy(update={"tags": None}),
        card,
        seed=42,
        inputs=InputNames(_IMAGE, _IMAGE, preset.width, preset.height),
        lora_hashes={_LORA: _SHA256},
    )


def _job(resolved: ResolvedRequest, card: Card) -> Job:
    delivery = WebhookDelivery(
        id=f"{_JOB_ID}-1795435203100-0",
        event="succeeded",
        attempt=1,
        at=_FINISHED_AT + timedelta(seconds=0.2),
        seconds=0.2,
        status=204,
    )
    image = StoredImage(
        url=f"/images/{_IMAGE}",
        seed=resolved.seed,
        width=resolved.width,
        height=resolved.height,
        format="png",
        bytes=1_482_311,
        sha256=_SHA256,
    )
    return Job(
        id=_JOB_ID,
        status="succeeded",
        request=resolved,
        progress=Progress(step=resolved.steps, steps=resolved.steps, fraction=1.0),
        images=(image,),
        warnings=(_warning(),),
        attempts=1,
        timings=Timings(queued=0.1, encode=0.2, denoise=2.4, decode=0.3, store=0.1),
        worker="worker-1",
        recipe=Recipe(
            card=card.name,
            checkpoint=_SHA256[::-1],
            text_encoder=_SHA256[1:] + "0",
            vae=_SHA256[2:] + "00",
            device_name="NVIDIA H100 80GB HBM3",
            precision="bfloat16",
            torch="2.13.0+cu130",
            service="kirazuri-server 0.1.0",
        ),
        webhook=JobWebhook(url=_WEBHOOK.url, events=tuple(_WEBHOOK.events), deliveries=(delivery,)),
        created_at=_CREATED_AT,
        started_at=_CREATED_AT + timedelta(seconds=0.1),
        finished_at=_FINISHED_AT,
        expires_at=_FINISHED_AT + timedelta(days=1),
    )


def _warning() -> JobWarning:
    return JobWarning(code="short_prompt", detail="3 tags; with fewer than 8 details bleed")


def _job_links(job: JobView) -> JobLinks:
    return JobLinks(
        events=f"{job.links.events}?token={_TOKEN}",
        images=[f"{image.url}?token={_TOKEN}" for image in job.images],
        expires_at=_CREATED_AT + timedelta(hours=1),
    )


def _verification(job: JobView) -> Verification:
    image, recipe = job.images[0], job.recipe or Recipe()
    return Verification(
        verdict="ours",
        summary=[f"The file is, byte for byte, an image of your job {job.id}."],
        sha256=image.sha256,
        bytes=image.bytes,
        format=image.format,
        width=image.width,
        height=image.height,
        made_by=Maker(job_id=job.id, image=image),
        mark=TRAINED,
        recipe=RecipeClaim(
            kind="kirazuri",
            request={"prompt": "1girl, long_hair, smile", "seed": image.seed},
            notes=[],
            model=recipe.card,
            checkpoint=recipe.checkpoint,
        ),
        credentials=CredentialClaim(
            state="valid",
            signer="Picture signer, Studio Kirazuri",
            generator="kirazuri-server",
            source_types=[TRAINED],
            problems=[],
        ),
    )


def _problem() -> Problem:
    detail = "Input should be less than or equal to 100; got 500"
    return Problem(
        type=VALIDATION_FAILED.path,
        title=VALIDATION_FAILED.title,
        status=VALIDATION_FAILED.status,
        detail="1 field is wrong",
        instance="6f1c0b7e2a9d4c55",
        code=VALIDATION_FAILED.code,
        errors=[FieldError(pointer="/steps", detail=detail, limit=100)],
    )


def _lora(card: Card) -> LoraDescription:
    return LoraDescription(
        name=_LORA,
        alias=None,
        sha256=_SHA256,
        bytes=92_274_688,
        method="lora",
        rank=32,
        parts=["transformer"],
        base="anima-preview",
        architecture="anima-preview/lora",
        trigger_words=[_LORA],
        warning=f"{_LORA} was made on anima-preview, not on {card.title}.",
    )

"""From a job to what the A1111 surface's clients read: `info`, progress, errors."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse, Response

from api.a1111.schemas import A1111Error, A1111Progress, A1111State
from api.http.problem import ProblemResponse
from model.card import Card
from model.recipes.infotext import prompt_with_loras, write_infotext
from model.recipes.recipe import Recipe
from model.sampler_catalog import SAMPLER_CATALOG
from worker.job import Job

_TIMESTAMP = "%Y%m%d%H%M%S"


def info_of(job: Job, card: Card, notes: Sequence[str]) -> str:
    """`info` of a job that succeeded: JSON inside JSON, as the web UI has it."""
    request, recipe = job.request, job.recipe or Recipe()
    prompt, count = prompt_with_loras(request), len(job.images)
    seeds = [image.seed for image in job.images]
    sizes = [(image.width, image.height) for image in job.images] or [(0, 0)]
    warnings = [*notes, *(warning.detail for warning in job.warnings)]
    return json.dumps(
        {
            "prompt": prompt,
            "all_prompts": [prompt] * count,
            "negative_prompt": request.negative_prompt,
            "all_negative_prompts": [request.negative_prompt] * count,
            "seed": request.seed,
            "all_seeds": seeds,
            "subseed": -1,
            "all_subseeds": [-1] * count,
            "subseed_strength": 0,
            "width": sizes[0][0],
            "height": sizes[0][1],
            "sampler_name": SAMPLER_CATALOG[request.sampler].display_name,
            "cfg_scale": request.cfg_scale,
            "steps": request.steps,
            "batch_size": count,
            "restore_faces": False,
            "face_restoration_model": None,
            "sd_model_name": card.name,
            "sd_model_hash": recipe.checkpoint[:10],
            "sd_vae_name": None,
            "sd_vae_hash": recipe.vae[:10],
            "seed_resize_from_w": -1,
            "seed_resize_from_h": -1,
            "denoising_strength": request.strength,
            "extra_generation_params": {},
            "index_of_first_image": 0,
            "infotexts": [write_infotext(request, recipe, seed=seed) for seed in seeds],
            "styles": [],
            "job_timestamp": job.created_at.strftime(_TIMESTAMP),
            "clip_skip": 1,
            "is_using_inpainting_conditioning": False,
            "version": recipe.service,
            "job_id": job.id,
            "warnings": warnings,
        },
        ensure_ascii=False,
    )


def in_base64(pictures: Sequence[bytes]) -> list[str]:
    """The files as texts, without `data:` before them."""
    return [base64.b64encode(picture).decode() for picture in pictures]


def progress_of(jobs: Sequence[Job], preview: str | None) -> A1111Progress:
    """How far the first of a client's unfinished jobs is; `preview` is its newest, a data URL.

    A job that has not begun is told apart from none by `job_count` alone.
    """
    current = jobs[0] if jobs else None
    step, steps = (current.progress.step, current.progress.steps) if current else (0, 0)
    waits = current is not None and current.queue_position is not None
    return A1111Progress(
        progress=current.progress.fraction if current else 0,
        eta_relative=(current.eta_seconds or 0) if current else 0,
        state=A1111State(
            skipped=False,
            interrupted=False,
            stopping_generation=False,
            job=current.id if current else "",
            job_count=len(jobs),
            job_timestamp=current.created_at.strftime(_TIMESTAMP) if current else "0",
            job_no=0,
            sampling_step=step,
            sampling_steps=steps,
        ),
        current_image=preview.partition(",")[2] if preview else None,
        textinfo=f"{current.queue_position} jobs before it" if current and waits else None,
        current_task=current.id if current else None,
    )


def as_a1111(refusal: ProblemResponse) -> Response:
    """An error as this surface's clients know it, with the status of the problem that it is."""
    fields = [
        {
            "type": "value_error",
            "loc": ["body", *error.pointer.strip("/").split("/")] if error.pointer else ["body"],
            "msg": error.detail,
        }
        for error in refusal.errors
    ]
    told = "; ".join(f"{error.pointer.strip('/')}: {error.detail}" for error in refusal.errors)
    error = A1111Error(
        error=refusal.kind.code,
        detail=fields or refusal.detail,
        body="",
        errors=told or refusal.detail,
        job_id=refusal.headers.get("X-Job-Id"),
    )
    return JSONResponse(error.model_dump(), refusal.kind.status, headers=dict(refusal.headers))


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors a route answers with, for its OpenAPI description."""
    return {status: {"model": A1111Error} for status in (*statuses, 500)}

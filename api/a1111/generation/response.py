"""Builds the response of `txt2img` and `img2img`."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from api.a1111.schemas import TIMESTAMP_FORMAT, A1111Body
from model.card import Card
from model.recipes.infotext import prompt_with_loras, write_infotext
from model.recipes.recipe import Recipe
from model.sampler_catalog import SAMPLER_CATALOG
from worker.job import Job


class A1111Pictures(A1111Body):
    """Finished images."""

    images: list[str] = Field(description="Image files in base64.", examples=[["iVBORw0KGgo…"]])
    parameters: dict[str, Any] = Field(
        description="The fields of the request that the service knows.",
        examples=[{"prompt": "1girl", "steps": 30}],
    )
    info: str = Field(
        description="JSON text with `seed`, `all_seeds`, `infotexts`, `width`, `height` and more. "
        "`job_id` is the id of the job; `warnings` lists what was changed or ignored.",
        examples=['{"seed": 42, "all_seeds": [42], "infotexts": ["1girl…"], "job_id": "01JD…"}'],
    )


def info_of(job: Job, card: Card, notes: Sequence[str]) -> str:
    """The `info` text of a succeeded job: JSON with the keys that the web UI writes.

    `notes` are added to the warnings of the job.
    """
    request, recipe = job.request, job.recipe or Recipe()
    prompt, count = prompt_with_loras(request), len(job.images)
    seeds = [image.seed for image in job.images]
    sizes = [(image.width, image.height) for image in job.images] or [(0, 0)]
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
            "job_timestamp": job.created_at.strftime(TIMESTAMP_FORMAT),
            "clip_skip": 1,
            "is_using_inpainting_conditioning": False,
            "version": recipe.service,
            "job_id": job.id,
            "warnings": [*notes, *(warning.detail for warning in job.warnings)],
        },
        ensure_ascii=False,
    )

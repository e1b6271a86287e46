"""What the tools answer: texts about jobs and presets, and links to images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from api.http.service_schemas import LoraDescription
from model.card import Card
from worker.job import TERMINAL, Job
from worker.store.image_store import MEDIA_TYPES

_MAX_LORAS = 200


@dataclass(frozen=True, slots=True)
class ImageLink:
    """A finished image: where it is, and a preview if one could be made."""

    url: str
    name: str
    size: int
    preview: bytes | None

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.name.rpartition(".")[2]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a tool before it is written in the format of MCP."""

    text: str
    images: Sequence[ImageLink] = ()
    is_error: bool = False


def describe_job(job: Job, images: Sequence[ImageLink] = ()) -> str:
    """A job in a few lines: its status, what comes next, its images and its warnings."""
    lines = [_headline(job)]
    for stored, image in zip(job.images, images, strict=False):
        lines.append(f"{stored.width}x{stored.height}, seed {stored.seed}: {image.url}")
    lines += [f"Warning: {warning.detail}" for warning in job.warnings]
    return "\n".join(lines)


def _headline(job: Job) -> str:
    text = f"Job {job.id} {'is ' if job.status in ('queued', 'running') else ''}{job.status}"
    if job.status == "failed" and job.error is not None:
        return f"{text}: {job.error.detail or job.error.title}"
    if job.status == "succeeded":
        count = len(job.images)
        return f"{text} with {count} image{'' if count == 1 else 's'}."
    if job.status in TERMINAL:
        return f"{text}."
    if job.status == "running":
        text = f"{text}, step {job.progress.step} of {job.progress.steps}"
    elif job.queue_position is not None:
        text = f"{text}, {job.queue_position} jobs before it"
    if job.eta_seconds is not None:
        text = f"{text}, about {job.eta_seconds:.0f} s left"
    return f"{text}. Call get_job with this id and wait_seconds for its images."


def describe_presets(card: Card, loras: Sequence[LoraDescription]) -> str:
    """The checkpoint's choices, limits and advice as JSON."""
    limits = card.limits
    presets = {
        "checkpoint": card.title,
        "summary": card.summary,
        "resolutions": {one.name: f"{one.width}x{one.height}" for one in card.resolutions},
        "size_limits": f"WIDTHxHEIGHT, multiples of {limits.multiple}, {limits.min_side} to "
        f"{limits.max_side} pixels per side, at most {limits.max_pixels} pixels",
        "samplers": {
            name: {
                "steps": advice.default_steps,
                "is_recommended": advice.is_recommended,
                "note": advice.note,
            }
            for name, advice in card.samplers.items()
        },
        "schedulers": list(card.schedulers),
        "recommended_cfg_scale": list(card.recommended_cfg_scale),
        "defaults": card.defaults.model_dump(mode="json"),
        "limits": {
            "steps": limits.max_steps,
            "cfg_scale": limits.max_cfg_scale,
            "num_images": limits.max_images,
            "prompt_characters": limits.max_prompt_chars,
        },
        "prompting": card.prompting.model_dump(mode="json"),
        "limitations": [one.detail for one in card.limitations],
        "loras": {lora.name: list(lora.trigger_words) for lora in loras[:_MAX_LORAS]},
        "loras_left_out": max(0, len(loras) - _MAX_LORAS),
    }
    return json.dumps(presets, ensure_ascii=False, indent=1)

"""Describes plans and jobs as names and values, for people."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cli.client.progress import duration

Fields = Iterator[tuple[str, object]]
"""Names and values; empty values are not printed."""


def describe_plan(plan: Mapping[str, Any]) -> Fields:
    """The plan of a dry run; values that the service could not determine are left out."""
    yield from _describe_request(plan["request"])
    for name, tokens in plan["tokens"].items():
        if tokens:
            cut = ", the end is cut off" if tokens["is_cut"] else ""
            yield (
                "tokens" if name == "prompt" else "… negative",
                f"{tokens['t5']} T5, {tokens['qwen']} Qwen of {tokens['limit']}{cut}",
            )
    yield "cost", f"{plan['cost']:g} megapixel-steps"
    if plan["queue_position"] is not None:
        yield "queue", f"{plan['queue_position']} before it"
    if plan["eta_seconds"] is not None:
        yield (
            "time",
            f"{plan['eta_seconds']:g} s: {plan['waiting_seconds']:g} waiting, "
            f"{plan['own_seconds']:g} working",
        )
    yield from _warnings(plan)


def describe_job(job: Mapping[str, Any]) -> Fields:
    """A job: state, request, images, and when what happened."""
    yield "job", job["id"]
    yield "status", f"{job['status']}{_progress(job)}"
    if job["error"]:
        yield "error", f"{job['error'].get('code')}: {job['error'].get('detail')}"
    if job["matches"] is not None:
        yield "replay", f"{'matches' if job['matches'] else 'differs from'} {job['replay_of']}"
    yield from _describe_request(job["request"])
    for image in job["images"]:
        yield "image", f"{image['url']}  seed {image['seed']}, {image['bytes']:,} bytes"
    yield "worker", job["worker"]
    if job["attempts"] > 1:
        yield "attempts", job["attempts"]
    for name in ("created", "started", "finished", "expires"):
        if job[f"{name}_at"]:
            yield name, job[f"{name}_at"]
    spent = [f"{name} {value:.2f}" for name, value in job["timings"].items() if value]
    yield "seconds", ", ".join(spent)
    yield from _warnings(job)


def job_row(job: Mapping[str, Any]) -> list[object]:
    """A row of the table of jobs."""
    request = job["request"]
    size = f"{request['width']}x{request['height']}"
    return [
        job["id"],
        f"{job['status']}{_progress(job)}",
        age(job["created_at"]),
        f"{request['num_images']} of {size}" if request["num_images"] > 1 else size,
        request["seed"],
        request["prompt"],
    ]


JOB_HEADS = ("JOB", "STATUS", "AGE", "SIZE", "SEED", "PROMPT")


def age(moment: str) -> str:
    """How long ago a moment of the service is, by this machine's clock."""
    return duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))


def _progress(job: Mapping[str, Any]) -> str:
    if job["status"] == "running":
        return f" {job['progress']['fraction']:.0%}"
    if job["status"] == "queued" and job["queue_position"] is not None:
        return f", {job['queue_position']} before it"
    return ""


def _describe_request(request: Mapping[str, Any]) -> Fields:
    seed = "random" if request["seed"] is None else request["seed"]
    yield "prompt", request["prompt"]
    yield "negative prompt", request["negative_prompt"] or "none"
    yield (
        "picture",
        f"{request['num_images']} of {request['width']}x{request['height']}, "
        f"{request['steps']} steps of {request['sampler']}, {request['scheduler']}, "
        f"guidance {request['cfg_scale']:g}, seed {seed}",
    )
    if request.get("init_image"):
        label = "repaints" if request.get("mask") else "starts from"
        yield label, f"{request['init_image']}, strength {request['strength']:g}"
    if hires := request.get("hires"):
        yield (
            "second pass",
            f"{hires['width']}x{hires['height']} by {hires['upscaler']}, {hires['steps']} steps, "
            f"strength {hires['strength']:g}",
        )
    for lora in request.get("loras") or ():
        yield "LoRA", f"{lora['name']}, weight {lora['weight']:g}"


def _warnings(of: Mapping[str, Any]) -> Fields:
    for warning in of["warnings"]:
        yield "warning", f"{warning['code']}: {warning['detail']}"

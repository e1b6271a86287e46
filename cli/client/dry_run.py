"""Formats the plan of a dry run as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

_WIDTH = 17


def describe(plan: Mapping[str, Any]) -> Iterator[str]:
    """The plan as lines of text; values that the service could not determine are left out."""
    request = plan["request"]
    seed = "random" if request["seed"] is None else request["seed"]
    yield _line("prompt", request["prompt"])
    yield _line("negative prompt", request["negative_prompt"] or "none")
    yield _line(
        "picture",
        f"{request['num_images']} of {request['width']}x{request['height']}, "
        f"{request['steps']} steps of {request['sampler']}, {request['scheduler']}, "
        f"guidance {request['cfg_scale']:g}, seed {seed}",
    )
    if request.get("init_image"):
        label = "repaints" if request.get("mask") else "starts from"
        yield _line(label, f"{request['init_image']}, strength {request['strength']:g}")
    if hires := request.get("hires"):
        yield _line(
            "second pass",
            f"{hires['width']}x{hires['height']} by {hires['upscaler']}, {hires['steps']} steps, "
            f"strength {hires['strength']:g}",
        )
    for name, tokens in plan["tokens"].items():
        if tokens:
            cut = ", the end is cut off" if tokens["is_cut"] else ""
            yield _line(
                "tokens" if name == "prompt" else "… negative",
                f"{tokens['t5']} T5, {tokens['qwen']} Qwen of {tokens['limit']}{cut}",
            )
    yield _line("cost", f"{plan['cost']:g} megapixel-steps")
    if plan["queue_position"] is not None:
        yield _line("queue", f"{plan['queue_position']} before it")
    if plan["eta_seconds"] is not None:
        yield _line(
            "time",
            f"{plan['eta_seconds']:g} s: {plan['waiting_seconds']:g} waiting, "
            f"{plan['own_seconds']:g} working",
        )
    for warning in plan["warnings"]:
        yield _line("warning", f"{warning['code']}: {warning['detail']}")


def _line(name: str, value: str) -> str:
    return f"{name:<{_WIDTH}}{value}"

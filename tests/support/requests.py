"""Builds small resolved requests."""

from typing import Any

from model.resolved_request import ResolvedRequest


def make_request(prompt: str = "1girl, smile", **changes: Any) -> ResolvedRequest:
    """A request of 64x64 pixels and 4 steps."""
    values: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": "",
        "width": 64,
        "height": 64,
        "steps": 4,
        "cfg_scale": 4.0,
        "sampler": "euler",
        "scheduler": "simple",
        "seed": 1,
        "num_images": 1,
        "image_format": "png",
        "image_quality": 90,
        "metadata": "full",
    }
    return ResolvedRequest(**values | changes)


def request(**changes: Any) -> ResolvedRequest:
    """A request of 128x96 pixels and 10 steps without guidance."""
    values: dict[str, Any] = {
        "prompt": "1girl",
        "width": 128,
        "height": 96,
        "steps": 10,
        "cfg_scale": 1.0,
    }
    return make_request(**values | changes)

"""Hooks of schemathesis: make more bodies valid under the rules that a schema cannot express.

A third of the bodies stays unchanged. The hooks change no check.
"""

import json
import os
import zlib
from typing import Any

import schemathesis

SIZES = ("square", "portrait", "128x128", "96x256", "square_hd")
PROMPT = (
    "masterpiece, best quality, 1girl, blue hair, (smile:1.2), long_hair, @wlop, simple background"
)
# A white picture of one pixel.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)

IMAGE_VARIABLE = "FUZZED_IMAGE"


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Replace half of the requested image names by one that exists."""
    if context.operation.path == "/images/{name}" and isinstance(path_parameters, dict):
        drawn = json.dumps(path_parameters, default=str).encode()
        if zlib.crc32(drawn) % 2:
            return {"name": os.environ[IMAGE_VARIABLE]}  # noqa: TID251 - from schema.py
    return path_parameters


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Make two thirds of the bodies for `/generate` more likely to be valid."""
    if not isinstance(body, dict) or context.operation.path != "/generate":
        return body
    number = zlib.crc32(json.dumps(body, sort_keys=True, default=str).encode())
    return plausible(body, number) if number % 3 else body


def plausible(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The body with valid values for fields that depend on the card or on other fields."""
    body = {name: value for name, value in body.items() if name not in ("loras", "sampler_options")}
    body["resolution"] = SIZES[number % len(SIZES)]
    if not body.get("prompt") or not isinstance(body["prompt"], str) or number % 2:
        body["prompt"] = PROMPT
    if body.get("init_image"):
        body["init_image"] = PICTURE
        if body.get("mask"):
            body["mask"] = f"data:image/png;base64,{PICTURE}"
    else:
        body = {k: v for k, v in body.items() if k not in ("init_image", "strength", "mask")}
    if body.get("webhook"):
        body["webhook"] = {"url": "https://127.0.0.1:9/hook"}
    if isinstance(body.get("hires"), dict):
        body["hires"] = {**body["hires"], "scale": 1.25}
        body["resolution"] = "128x128"
    return body

"""The `parameters` text of the A1111 web UI, which most tools read from picture files.

Prompt, a `Negative prompt:` line, then `key: value` pairs on the last line. Knows no files.
"""

import json

from model.recipe import Recipe
from model.request import ResolvedRequest
from model.sampler_names import DISPLAY_NAMES, SCHEDULE_DISPLAY_NAMES


def write_infotext(request: ResolvedRequest, recipe: Recipe, *, seed: int) -> str:
    """The recipe of one picture as the web UI writes it; `seed` is the picture's own.

    The negative line is there also when empty, since readers look for it. Of the checkpoint's
    SHA-256 ten digits are shown.
    """
    pairs = {
        "Steps": request.steps,
        "Sampler": DISPLAY_NAMES[request.sampler],
        "Schedule type": SCHEDULE_DISPLAY_NAMES[request.scheduler],
        "Sampler options": json.dumps(request.sampler_options) if request.sampler_options else "",
        "CFG scale": f"{request.cfg_scale:g}",
        "Seed": seed,
        "Size": f"{request.width}x{request.height}",
        "Model hash": recipe.checkpoint[:10],
        "Model": recipe.card,
        "Version": recipe.service,
    }
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value != "")
    return f"{request.prompt}\nNegative prompt: {request.negative_prompt}\n{line}"


def _quoted(value: str) -> str:
    """A value with a separator in it is written as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value

"""Samplers and schedules by the names that other programs write.

Compared without case, spaces and punctuation, which makes most of the names equal.
"""

import re

from model.sampler_names import DISPLAY_NAMES, SCHEDULE_DISPLAY_NAMES


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_SAMPLERS = {_plain(text): name for name, title in DISPLAY_NAMES.items() for text in (title, name)}
_SCHEDULES = {
    **{_plain(t): name for name, title in SCHEDULE_DISPLAY_NAMES.items() for t in (title, name)},
    "ddim": "ddim_uniform",
}

_MAX_NAME_CHARS = 100


def find_sampler(text: str) -> tuple[str | None, str | None]:
    """Our sampler of this name, and the schedule where the name includes one.

    Such as "DPM++ 2M Karras" of older web UIs, or "dpmpp_2m_sde_gpu" of ComfyUI.
    """
    plain = _plain(text[:_MAX_NAME_CHARS]).removesuffix("gpu")
    if plain in _SAMPLERS:
        return _SAMPLERS[plain], None
    for ending, schedule in _SCHEDULES.items():
        if plain.endswith(ending) and plain.removesuffix(ending) in _SAMPLERS:
            return _SAMPLERS[plain.removesuffix(ending)], schedule
    return None, None


def find_schedule(text: str) -> str | None:
    """Our schedule of this name."""
    return _SCHEDULES.get(_plain(text[:_MAX_NAME_CHARS]))

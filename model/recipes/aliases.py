"""Samplers, schedules and LoRAs by the names that other programs write.

Compared without case, spaces and punctuation, which makes most of the names equal.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, OptionValue


class SamplerAlias(NamedTuple):
    """Our sampler, with the options and the schedule that the other name includes."""

    sampler: str
    options: dict[str, OptionValue] = {}  # noqa: RUF012 - a tuple's default, which nobody changes
    schedule: str | None = None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_SAMPLERS = {
    **{
        _plain(t): SamplerAlias(name)
        for name, info in SAMPLER_CATALOG.items()
        for t in (info.display_name, name)
    },
    "dpmpp2msdeheun": SamplerAlias("dpmpp_2m_sde", {"solver_type": "heun"}),
    "ddim": SamplerAlias("euler", schedule="ddim_uniform"),  # on a flow model its step is Euler's
}
_SCHEDULES = {
    **{_plain(t): name for name, title in SCHEDULE_DISPLAY_NAMES.items() for t in (title, name)},
    "ddim": "ddim_uniform",
}

_MAX_NAME_CHARS = 100


def find_sampler(text: str) -> SamplerAlias | None:
    """Our sampler of this name.

    Also such as "DPM++ 2M Karras" of older web UIs, or "dpmpp_2m_sde_gpu" of ComfyUI.
    """
    plain = _plain(text[:_MAX_NAME_CHARS]).removesuffix("gpu")
    if plain in _SAMPLERS:
        return _SAMPLERS[plain]
    for ending, schedule in _SCHEDULES.items():
        if plain.endswith(ending) and plain.removesuffix(ending) in _SAMPLERS:
            return _SAMPLERS[plain.removesuffix(ending)]._replace(schedule=schedule)
    return None


def find_schedule(text: str) -> str | None:
    """Our schedule of this name."""
    return _SCHEDULES.get(_plain(text[:_MAX_NAME_CHARS]))


def find_lora(text: str, names: Collection[str]) -> str | None:
    """The name itself, or the only one that ends so in a folder, which others leave out."""
    if text in names:
        return text
    last = text.rpartition("/")[2].lower()
    alike = [name for name in names if name.rpartition("/")[2].lower() == last]
    return alike[0] if len(alike) == 1 else None

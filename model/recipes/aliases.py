"""Finds samplers, schedules and LoRAs by the names that other programs use.

Names are compared without case, spaces and punctuation.
"""

import re
from typing import Any, NamedTuple

from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, OptionValue


class SamplerAlias(NamedTuple):
    """A sampler, with the options and the schedule that the other program's name implies."""

    sampler: str
    options: dict[str, OptionValue] = {}  # noqa: RUF012 - the default of a tuple, never changed
    schedule: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a request that select this sampler."""
        fields: dict[str, Any] = {"sampler": self.sampler}
        if self.options:
            fields["sampler_options"] = dict(self.options)
        if self.schedule:
            fields["scheduler"] = self.schedule
        return fields


def _normalized(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_SAMPLERS = {
    **{
        _normalized(t): SamplerAlias(name)
        for name, info in SAMPLER_CATALOG.items()
        for t in (info.display_name, name)
    },
    "dpmpp2msdeheun": SamplerAlias("dpmpp_2m_sde", {"solver_type": "heun"}),
    "ddim": SamplerAlias(
        "euler", schedule="ddim_uniform"
    ),  # on a flow model its step equals Euler's
}
_SCHEDULES = {
    **{
        _normalized(t): name
        for name, title in SCHEDULE_DISPLAY_NAMES.items()
        for t in (title, name)
    },
    "ddim": "ddim_uniform",
}

_MAX_NAME_CHARS = 100


def find_sampler(text: str) -> SamplerAlias | None:
    """Find a sampler by its name in this service, A1111 or ComfyUI.

    Also accepts "DPM++ 2M Karras" of older web UIs and "dpmpp_2m_sde_gpu" of ComfyUI.
    """
    normalized = _normalized(text[:_MAX_NAME_CHARS]).removesuffix("gpu")
    if normalized in _SAMPLERS:
        return _SAMPLERS[normalized]
    for ending, schedule in _SCHEDULES.items():
        if normalized.endswith(ending) and normalized.removesuffix(ending) in _SAMPLERS:
            return _SAMPLERS[normalized.removesuffix(ending)]._replace(schedule=schedule)
    return None


def find_schedule(text: str) -> str | None:
    """Find a schedule by its name in this service, A1111 or ComfyUI."""
    return _SCHEDULES.get(_normalized(text[:_MAX_NAME_CHARS]))

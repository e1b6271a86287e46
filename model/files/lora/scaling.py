"""Finds the alpha of LoRAs that store none as a tensor: in the metadata or in peft's configuration.

A LoRA's change is alpha / rank * up @ down; with rank-stabilised scaling (Kalajdzievski 2023,
arXiv 2312.03732) alpha / sqrt(rank). Some writers store the two numbers beside the tensors only.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model.errors import LoraUnusable
from model.files.lora.targets import LoraTarget

ADAPTER_CONFIG = "adapter_config.json"
"""The file that peft writes next to the weights."""

_JSON_KEYS = ("lora_adapter_metadata", "adapter_config", "peft_config", "lora_config")
_COMPONENTS = {
    "": None,
    "transformer": "transformer",
    "unet": "transformer",
    "text_conditioner": "adapter",
    "text_encoder": "text_encoder",
}
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "eva_residual")
_MAX_PATTERN_CHARS = 500


@dataclass(frozen=True, slots=True)
class Scaling:
    """One statement of alpha and rank, for one part of the model or for all (None).

    The patterns have other numbers for modules whose name they match, as in peft.
    """

    source: str
    part: str | None
    alpha: float
    rank: int
    is_rank_stabilised: bool = False
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rank_pattern: Mapping[str, float] = field(default_factory=dict)

    def alpha_for(self, target: LoraTarget, rank: int) -> float:
        """The alpha of a module's tensors of this rank, to be divided by the rank.

        Raises:
            LoraUnusable: the tensors have another rank than stated.
        """
        stated = _matched(self.rank_pattern, target, self.rank)
        if stated != rank:
            raise LoraUnusable(
                f"contradicts itself: {self.source} says rank {stated:g}, the tensors of "
                f"{target.original} have {rank}"
            )
        alpha = _matched(self.alpha_pattern, target, self.alpha)
        return alpha * math.sqrt(rank) if self.is_rank_stabilised else alpha


def alpha_for(scalings: Iterable[Scaling], target: LoraTarget, rank: int) -> float | None:
    """The alpha that all statements about this module agree on; None without a statement.

    Raises:
        LoraUnusable: the statements contradict each other or the tensors.
    """
    found = {
        scaling.source: scaling.alpha_for(target, rank)
        for scaling in scalings
        if scaling.part in (None, target.part)
    }
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{source} {alpha:g}" for source, alpha in found.items())
        raise LoraUnusable(f"contradicts itself about alpha: {listed}")
    return next(iter(found.values()), None)


def read_scalings(
    metadata: Mapping[str, str], adapter_config: Mapping[str, Any] | None
) -> list[Scaling]:
    """Every statement of alpha and rank in the metadata and in peft's configuration.

    Raises:
        LoraUnusable: a statement is incomplete or cannot be read.
    """
    found = []
    kohya = {
        name: text
        for name in ("ss_network_alpha", "ss_network_dim")
        if (text := metadata.get(name, "None")) not in ("", "None")
    }
    if "ss_network_alpha" in kohya:
        found.append(_scaling("ss_network_alpha", "", kohya, *kohya_names()))
    for key in _JSON_KEYS:
        if key in metadata:
            found += _from_config(key, read_object(key, metadata[key]))
    if adapter_config is not None:
        found += _from_config(ADAPTER_CONFIG, adapter_config)
    return found


def kohya_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of alpha and rank in the metadata of kohya's sd-scripts."""
    return ("ss_network_alpha",), ("ss_network_dim",)


def read_object(source: str, text: str) -> Mapping[str, Any]:
    """An object of JSON in the metadata. LoraUnusable if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise LoraUnusable(f"has {source} that cannot be read")
    return value


def _from_config(source: str, config: Mapping[str, Any]) -> list[Scaling]:
    """Statements of a peft configuration; diffusers puts the part's name before every key."""
    found = []
    for component in _COMPONENTS:
        prefix = f"{component}." if component else ""
        own = {key.removeprefix(prefix): value for key, value in config.items()
               if key.startswith(prefix)}  # fmt: skip
        if own.keys() & {"r", "lora_alpha", "alpha"}:
            _refuse_other_base(source, own)
            names = ("lora_alpha", "alpha"), ("r",)
            found.append(_scaling(source, component, own, *names))
    return found


def _refuse_other_base(source: str, config: Mapping[str, Any]) -> None:
    """Refuse adapters that change weights which their training had changed before."""
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_OTHER_BASE):
        raise LoraUnusable(
            f"needs a base model prepared by its training: {source} says init_lora_weights {start}"
        )
    if config.get("fan_in_fan_out") is True:
        raise LoraUnusable(f"is for transposed weights: {source} says fan_in_fan_out")


def _scaling(
    source: str,
    component: str,
    config: Mapping[str, Any],
    alpha_names: tuple[str, ...],
    rank_names: tuple[str, ...],
) -> Scaling:
    alphas = [_number(source, config[name]) for name in alpha_names if name in config]
    ranks = [_number(source, config[name]) for name in rank_names if name in config]
    if len(alphas) != 1 or len(ranks) != 1 or ranks[0] < 1 or ranks[0] % 1:
        raise LoraUnusable(f"has {source} without one alpha and one rank")
    return Scaling(
        source=source,
        part=_COMPONENTS[component],
        alpha=alphas[0],
        rank=int(ranks[0]),
        is_rank_stabilised=config.get("use_rslora") is True,
        alpha_pattern=_pattern(source, config.get("alpha_pattern")),
        rank_pattern=_pattern(source, config.get("rank_pattern")),
    )


def _pattern(source: str, value: Any) -> dict[str, float]:
    if not value:
        return {}
    if not isinstance(value, dict) or any(len(key) > _MAX_PATTERN_CHARS for key in value):
        raise LoraUnusable(f"has a pattern in {source} that cannot be read")
    return {str(key): _number(source, number) for key, number in value.items()}


def _number(source: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise LoraUnusable(f"has {source} with {str(value)[:40]!r} for a number")
    return number


def _matched(pattern: Mapping[str, float], target: LoraTarget, default: float) -> float:
    """The number of the first key that is the module's name or the end of it after a dot.

    peft allows regular expressions; of these, only a leading `^` is read, and others match nothing
    as text, which then contradicts the rank.
    """
    for key, number in pattern.items():
        wanted = re.sub(r"\\(.)", r"\1", key.removeprefix("^").removesuffix("$"))
        for name in (target.module, target.original):
            if name == wanted or (not key.startswith("^") and name.endswith(f".{wanted}")):
                return number
    return default

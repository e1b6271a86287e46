"""Finds the alpha of LoRAs that store none as a tensor: in the metadata or in peft's configuration.

A LoRA's change is alpha / rank * up @ down; with rank-stabilised scaling (Kalajdzievski 2023,
arXiv 2312.03732) alpha / sqrt(rank). Some writers store the two numbers beside the tensors only.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from model.errors import LoraUnusable
from model.files.lora.statements import (
    ADAPTER_CONFIG,
    ALPHA_NAMES,
    KOHYA_ALPHA,
    METADATA,
    RANK_NAMES,
    AdapterSettings,
    UnknownAlpha,
    adapter_settings,
    read_object,
    stated_number,
    unknown_alphas,
)
from model.files.lora.targets import DOTTED_PREFIXES, LoraTarget

_KOHYA_DIM, _KOHYA_MODULE = "ss_network_dim", "ss_network_module"
_STORES_ALPHA = ("networks.", "musubi_tuner.networks.", "lycoris.")
"""Modules of sd-scripts, musubi-tuner and LyCORIS: each stores alpha as a tensor."""

_LYCORIS, _KOHYA_HASH = "lycoris.kohya", "sshs_model_hash"
_PEFT_WRAPPER = "base_model.model."
_IS_DOTTED = re.compile(r"^[^.]+\..+[._]lora[_.]")
_ALPHA_ROUNDING = 0.01
"""Alphas are compared with this relative error, because bfloat16 rounds them."""

_MAX_PATTERN_CHARS = 500
_MAX_CHOICES = 16
_UNBOUNDED = 6

Pattern = tuple[tuple[re.Pattern[str], float], ...]


class StatedAlpha(NamedTuple):
    """An alpha, to be divided by the rank."""

    alpha: float
    rank: int


@dataclass(frozen=True, slots=True)
class ScaledModule:
    """One module of a file: its name there, what it changes, and its tensors' keys by role.

    `rank` is that of the tensors; None if they have none, as two whole factors of LoKr.
    """

    stem: str
    target: LoraTarget
    keys: Mapping[str, str]
    rank: int | None

    @property
    def names(self) -> set[str]:
        """The names of the module that patterns may match."""
        prefixes = (p for p in DOTTED_PREFIXES[self.target.part] if self.stem.startswith(p))
        own = {self.stem.removeprefix(prefix) for prefix in prefixes}
        return own | {self.stem, self.target.module, self.target.original}


@dataclass(frozen=True, slots=True)
class Scaling:
    """One statement of alpha and rank, for one part of the model or for all (None).

    The patterns have other numbers for modules whose name they match. Without a rank, it is that
    of the tensors.
    """

    source: str
    part: str | None
    alpha: float
    rank: int | None
    is_rank_stabilised: bool
    is_dora: bool
    alpha_pattern: Pattern
    rank_pattern: Pattern

    def alpha_for(self, module: ScaledModule) -> StatedAlpha:
        """The alpha of a module.

        Raises:
            LoraUnusable: the tensors have another rank than stated, or no scales of DoRA.
        """
        stated = _matched(self.rank_pattern, module.names, self.rank)
        rank = module.rank or (int(stated) if stated else None)
        if rank is None or (stated is not None and stated != rank):
            raise LoraUnusable(
                f"contradicts itself: {self.source} says rank {stated or 'nothing'}, the tensors "
                f"of {module.target.original} have {rank or 'none'}"
            )
        roles = module.keys.keys()
        if self.is_dora and "down" in roles and not roles & {"magnitude", "dora_scale"}:
            raise LoraUnusable(
                f"contradicts itself: {self.source} says use_dora, but {module.target.original} "
                "has no scales of DoRA"
            )
        alpha = _matched(self.alpha_pattern, module.names, self.alpha) or 0.0
        return StatedAlpha(alpha * math.sqrt(rank) if self.is_rank_stabilised else alpha, rank)


class Scalings:
    """Everything that a file says beside its tensors about alpha and rank.

    It is only read if it `is_needed`: if a module has no tensor of alpha.
    `shared_config` is a configuration of peft that lies next to this and to other files.

    Raises:
        LoraUnusable: a statement is incomplete or cannot be read.
    """

    def __init__(
        self,
        metadata: Mapping[str, str],
        adapter_config: Mapping[str, Any] | None,
        *,
        is_needed: bool,
        shared_config: Mapping[str, Any] | None,
    ) -> None:
        self._metadata = metadata
        self._shared_config = shared_config
        settings = adapter_settings(metadata, adapter_config) if is_needed else []
        self._stated = [found for found in map(_scaling, settings) if found]

    def alpha_for(self, module: ScaledModule) -> StatedAlpha | None:
        """The alpha that all statements about this module agree on; None without a statement.

        Raises:
            LoraUnusable: the statements contradict each other or the tensors, or what they say is
                not understood.
        """
        found = [
            (scaling.source, scaling.alpha_for(module))
            for scaling in self._stated
            if scaling.part in (None, module.target.part)
        ]
        kohya = self._kohya_alpha(module)
        if kohya is not None:
            found.append((KOHYA_ALPHA, kohya))
        if len({stated for _, stated in found}) > 1:
            listed = ", ".join(f"{source} {stated.alpha:g}" for source, stated in found)
            raise LoraUnusable(f"contradicts itself about alpha: {listed}")
        if not found and not self._is_folded(module):
            for unknown in self._unknown_alphas:
                unknown.require_harmless(module.rank)
            self._refuse_shared(module)
        return found[0][1] if found else None

    @cached_property
    def _unknown_alphas(self) -> list[UnknownAlpha]:
        return unknown_alphas(self._metadata)

    def _refuse_shared(self, module: ScaledModule) -> None:
        """Refuse a file if the configuration next to it changes its scale: it may be another's."""
        if self._shared_config is None:
            return
        settings = adapter_settings({}, self._shared_config)
        for scaling in filter(None, map(_scaling, settings)):
            try:
                stated = scaling.alpha_for(module)
            except LoraUnusable:
                continue  # it is of a file with other tensors
            if stated.alpha != stated.rank:
                raise LoraUnusable(
                    f"has no alpha, and {ADAPTER_CONFIG} lies next to several files: put the file "
                    "that it belongs to into a folder of its own with it"
                )

    def _kohya_alpha(self, module: ScaledModule) -> StatedAlpha | None:
        """What `ss_network_alpha` means for a module without a tensor of alpha.

        The writers of this entry store alpha as a tensor. A file without has been converted: those
        converters that leave the tensor out, of musubi-tuner and sd-scripts, multiply the weights
        by it. Only trainers that save with peft leave it out and do not.
        """
        text = self._metadata.get(KOHYA_ALPHA, "None")
        if text in ("", "None"):
            return None
        stated, dim = self._kohya_number(KOHYA_ALPHA), self._kohya_dim()
        if any(_PEFT_WRAPPER in key for key in module.keys.values()):
            if stated is None or dim is None or module.rank not in (None, dim):
                raise LoraUnusable(f"contradicts itself: {self._kohya_text(module)}")
            return StatedAlpha(stated, dim)
        is_one = stated is not None and stated in (dim, module.rank)
        if is_one or self._is_folded(module):
            return None
        raise LoraUnusable(
            f"contradicts itself: {self._kohya_text(module)}, but no tensor of alpha, which the "
            f"writers of {KOHYA_ALPHA} store"
        )

    def _kohya_text(self, module: ScaledModule) -> str:
        alpha, dim = (self._metadata.get(name, "")[:40] for name in (KOHYA_ALPHA, _KOHYA_DIM))
        return (
            f"{KOHYA_ALPHA} is {alpha!r} and {_KOHYA_DIM} {dim!r}; {module.target.original} has "
            f"rank {module.rank}"
        )

    def _is_folded(self, module: ScaledModule) -> bool:
        """Whether alpha is known to be in the weights: a converted file of a known writer."""
        writer = self._metadata.get(_KOHYA_MODULE, "")
        key = module.keys.get("down", "")
        is_converted = bool(_IS_DOTTED.search(key)) and _PEFT_WRAPPER not in key
        return is_converted and writer.startswith(_STORES_ALPHA)

    def whole_lokr_rank(self, module: ScaledModule, alpha: float) -> int | None:
        """The rank that divides the alpha tensor of two whole factors; None: the factor is 1.

        LyCORIS stores its rank as alpha then, or with rank-stabilised scaling rank^1.5, and the
        factor is 1. Trainers of their own formula store the alpha that they divide by the rank.

        Raises:
            LoraUnusable: the metadata contradicts the tensor.
        """
        dim, stated = self._kohya_dim(), self._kohya_number(KOHYA_ALPHA)
        writer = self._metadata.get(_KOHYA_MODULE)
        if dim is None or (writer == _LYCORIS and _KOHYA_HASH in self._metadata):
            return None
        if _is_near(alpha, dim):
            return None
        if stated is not None and _is_near(alpha, stated):
            return dim
        if _is_near(alpha, dim**1.5):
            return None
        raise LoraUnusable(
            f"contradicts itself: {module.keys['alpha']} is {alpha:g}; {self._kohya_text(module)}"
        )

    def _kohya_dim(self) -> int | None:
        dim = self._kohya_number(_KOHYA_DIM)
        return int(dim) if dim and dim % 1 == 0 else None

    def _kohya_number(self, name: str) -> float | None:
        """A positive number of the metadata; None for words such as "Dynamic"."""
        try:
            number = float(self._metadata.get(name, ""))
        except ValueError:
            return None
        return number if 1e-9 < number < 1e9 else None


def _is_near(value: float, wanted: float) -> bool:
    return math.isclose(value, wanted, rel_tol=_ALPHA_ROUNDING)


def _scaling(settings: AdapterSettings) -> Scaling | None:
    alpha, rank = settings.number(ALPHA_NAMES), settings.number(RANK_NAMES)
    if alpha is None and rank is None:
        return None
    has_rank = rank is not None and rank >= 1 and rank % 1 == 0
    may_lack_rank = rank is None and settings.source == METADATA
    if alpha is None or not (has_rank or may_lack_rank):
        raise LoraUnusable(f"has {settings.source} without exactly one alpha and rank")
    return Scaling(
        source=settings.source,
        part=settings.part,
        alpha=alpha,
        rank=int(rank) if rank is not None else None,
        is_rank_stabilised=settings.is_set("use_rslora"),
        is_dora=settings.is_set("use_dora"),
        alpha_pattern=_pattern(settings, "alpha_pattern"),
        rank_pattern=_pattern(settings, "rank_pattern"),
    )


def _pattern(settings: AdapterSettings, name: str) -> Pattern:
    """Peft's patterns: regular expressions for the whole name or for its end after a dot."""
    value = settings.values.get(name)
    if isinstance(value, str) and value not in ("", "None"):
        value = read_object(f"{name} in {settings.source}", value)
    if value in (None, "", "None"):
        return ()
    if not isinstance(value, dict):
        raise LoraUnusable(f"has {name} in {settings.source} that cannot be read")
    found = []
    for key, number in value.items():
        if len(key) > _MAX_PATTERN_CHARS or _is_slow(key):
            raise LoraUnusable(f"has {name} in {settings.source} that is too complex: {key[:80]}")
        try:
            compiled = re.compile(rf"(.*\.)?({key})$")
        except re.error as exc:
            raise LoraUnusable(
                f"has {name} in {settings.source} that cannot be read: {key[:80]}"
            ) from exc
        found.append((compiled, stated_number(settings.source, number)))
    return tuple(found)


def _is_slow(pattern: str) -> bool:
    """Whether matching may try very many ways: repeated groups, or many choices one after another.

    A file must not be able to stop the service.
    """
    bare = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", pattern)
    is_repeated = re.search(r"\)[*+{]", bare) or re.search(r"\(\?[^:]", bare)
    unbounded = len(re.findall(r"[*+{]", bare))
    choices = len(re.findall(r"[|?]", bare.replace("(?:", "(")))
    return bool(is_repeated) or _UNBOUNDED * unbounded + choices > _MAX_CHOICES


def _matched(pattern: Pattern, names: Iterable[str], default: float | None) -> float | None:
    """The number of the first key that matches one of a module's names, as in peft."""
    wanted: Sequence[str] = sorted(names)
    for key, number in pattern:
        if any(key.match(name) for name in wanted):
            return number
    return default

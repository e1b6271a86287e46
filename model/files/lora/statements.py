"""Finds the settings of adapters beside the tensors, in every form that trainers write.

One peft configuration may stand in peft's file next to the weights, or in the metadata as JSON or
as one entry for each setting. Diffusers puts the part's name before each setting, others nest the
settings under the names of parts or adapters.
"""

import ast
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from model.errors import LoraUnusable
from model.files.lora.targets import LoraPart

ADAPTER_CONFIG = "adapter_config.json"
"""The file that peft writes next to the weights."""

METADATA = "the metadata"
"""The source of settings that are entries of the metadata themselves."""

ALPHA_NAMES = ("lora_alpha", "network_alpha", "linear_alpha", "alpha")
RANK_NAMES = ("r", "rank", "lora_rank", "network_dim", "lora_dim", "dim")

_JSON_KEYS = ("lora_adapter_metadata", "adapter_config", "peft_config", "lora_config")
_MAX_DEPTH = 8
_PARTS: tuple[tuple[re.Pattern[str], LoraPart], ...] = (
    (re.compile(r"text_encoder|^te\d?$|qwen", re.I), "text_encoder"),
    (re.compile(r"text_conditioner|llm_adapter", re.I), "adapter"),
    (re.compile(r"transformer|unet|^dit$|denoiser|diffusion_model|^net$", re.I), "transformer"),
)
_PEFT_TYPES = frozenset({"LORA", "LOHA", "LOKR", "IA3", "OFT"})
_KNOWN_SWITCHES = frozenset({"use_rslora", "use_dora", "use_effective_conv2d"})
_PEFT_FORMULAS = (
    "layer_replication", "alora_invocation_tokens", "arrow_config", "monteclora_config",
)  # fmt: skip
"""Settings of peft that change what an adapter does."""

_OFF = frozenset({"false", "0", "none", "", "[]", "{}"})
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga", "eva_residual")
_OTHER_ALPHA_KEY = re.compile(r"(?<!conv)(?:^|[._])alpha$")
_OWN_ALPHAS = frozenset(ALPHA_NAMES) - {"alpha"}
"""Names that mean the alpha of an adapter wherever they stand."""

_FACTORS = frozenset({"scaling", "lora_scale", "lora_scaling"})
_RANKS = frozenset({*RANK_NAMES, "linear"})
_ADAPTER_PLACES = frozenset({
    "network", "lora", "adapter", "peft", "lora_config", "adapter_config", "peft_config",
    "network_args", "network_kwargs", "ss_network_args",
})  # fmt: skip
_NOT_SETTINGS = re.compile(
    r"tag_frequency|dataset_dirs|(^|[._])(tags|captions?|(sample_)?prompts?|workflow)$"
    r"|optimizer|scheduler|loss"
)
"""Places with words of captions, with a graph of ComfyUI, or with settings of the training."""

_SECTION = re.compile(r"^[ \t]*+(?:\[[^\n]*\]|[^\s:=]++:)[ \t]*+$", re.MULTILINE)
"""A line that starts a section in TOML or YAML."""

_ASSIGNED = re.compile(
    r"""(?<![\w.])(-{0,2}[A-Za-z][\w-]{0,40})["']?[ ]*+[:=][ ]*+["']?(-?\d[\d.e+-]{0,20})"""
    r"""|(?<!\S)(--[A-Za-z][\w-]{0,40})[ ]++(-?\d[\d.e+-]{0,20})"""
)
"""A setting and its number: `alpha = 16`, `'alpha': 16`, `--alpha 16`."""

KOHYA_ALPHA = "ss_network_alpha"


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """Settings for one part of the model, or for all (None). `source` says where they stand."""

    source: str
    part: LoraPart | None
    values: Mapping[str, Any]

    def number(self, names: tuple[str, ...]) -> float | None:
        """The number that has one of these names. LoraUnusable if several differ."""
        found = {
            stated_number(self.source, self.values[name])
            for name in names
            if self.values.get(name) not in (None, "", "None")
        }
        if len(found) > 1:
            raise LoraUnusable(
                f"contradicts itself: {self.source} has several of {', '.join(names)}"
            )
        return next(iter(found), None)

    def is_set(self, name: str) -> bool:
        """Whether a switch is on. LoraUnusable if it is not a truth value."""
        value = self.values.get(name)
        text = str(value).lower()
        if text in ("true", "1"):
            return True
        if text in _OFF:
            return False
        raise LoraUnusable(f"has {self.source} with {name} {text[:40]!r}; must be true or false")


def adapter_settings(
    metadata: Mapping[str, str], adapter_config: Mapping[str, Any] | None
) -> list[AdapterSettings]:
    """All settings of adapters in the metadata and in peft's configuration.

    Raises:
        LoraUnusable: they cannot be read, or need what is not supported.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = [
        (key, read_object(key, metadata[key])) for key in _JSON_KEYS if key in metadata
    ]
    if adapter_config is not None:
        sources.append((ADAPTER_CONFIG, adapter_config))
    found = [
        AdapterSettings(source, _part(path), values)
        for source, config in sources
        for path, values in _walk(config, ())
    ]
    found += [
        AdapterSettings(METADATA, _part(path), values)
        for path, values in _walk(metadata, ())
        if not values.keys().isdisjoint(ALPHA_NAMES)
    ]
    for settings in found:
        _refuse_unsupported(settings)
    return found


def _refuse_unsupported(settings: AdapterSettings) -> None:
    """Refuse adapters whose formula is not supported, or that need another base model."""
    values, source = settings.values, settings.source
    kind = str(values.get("peft_type") or "").upper().rpartition(".")[2]
    if kind and kind not in _PEFT_TYPES:
        raise LoraUnusable(f"is of a method that is not supported: {source} says {kind[:40]}")
    start = str(values.get("init_lora_weights", "")).lower()
    if start.startswith(_OTHER_BASES):
        raise LoraUnusable(
            f"needs a base model prepared by its training: {source} says init_lora_weights {start}"
        )
    if settings.is_set("fan_in_fan_out"):
        raise LoraUnusable(f"is for transposed weights: {source} says fan_in_fan_out")
    switches = [name for name in values if name.startswith("use_")] if kind else []
    for name in (*_PEFT_FORMULAS, *switches):
        if name not in _KNOWN_SWITCHES and str(values.get(name)).lower() not in _OFF:
            raise LoraUnusable(
                f"is trained with {name} according to {source}; that is not supported"
            )


class UnknownAlpha(NamedTuple):
    """An alpha of an adapter whose place or form is not understood, or a factor instead."""

    source: str
    value: Any
    is_factor: bool

    def require_harmless(self, rank: int | None) -> None:
        """LoraUnusable if it changes the scale: if alpha is not the rank, or the factor not 1."""
        number = _float(self.value)
        if math.isfinite(number) and number != (1 if self.is_factor else rank):
            raise LoraUnusable(
                f"has no alpha among its tensors, and what {self.source} says of alpha "
                f"({str(self.value).strip()[:40]}) is not understood"
            )


def unknown_alphas(metadata: Mapping[str, str]) -> list[UnknownAlpha]:
    """The alphas that a file states in places or forms whose meaning is not known.

    Only settings of adapters count: names such as `lora_alpha`, or `alpha` beside a rank or in
    a place such as `network`.
    """
    found = []
    for key, text in metadata.items():
        if key in _JSON_KEYS or key.rpartition(".")[2] in (*ALPHA_NAMES, KOHYA_ALPHA):
            continue  # it is about another part
        if _OTHER_ALPHA_KEY.search(_snake_case(key)):
            found.append(UnknownAlpha(key, text, is_factor=False))
            continue
        inner = _alphas_in(_parsed(text), place=key)
        found += [UnknownAlpha(key, value, is_factor) for value, is_factor in inner]
    return found


def _parsed(text: str) -> Any:
    """The value that a text means in JSON or as Python writes it; else the text."""
    if text.lstrip().startswith(("{", "[")):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    return text


def _alphas_in(value: Any, place: str, depth: int = 0) -> Iterator[tuple[Any, bool]]:
    """Each alpha of an adapter in a value, and whether it is a factor instead."""
    if depth > _MAX_DEPTH or _NOT_SETTINGS.search(place):
        return
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        value = " ".join(value)  # arguments of a command
    if isinstance(value, str):
        for section in _SECTION.split(value):
            pairs = _ASSIGNED.findall(section)
            yield from _alphas_of({a or c: b or d for a, b, c, d in pairs}, place)
    elif isinstance(value, list):
        for entry in value:
            yield from _alphas_in(entry, place, depth + 1)
    elif isinstance(value, dict) and "class_type" not in value and "nodes" not in value:
        yield from _alphas_of(value, place)
        for key, inner in value.items():
            yield from _alphas_in(inner, str(key), depth + 1)


def _alphas_of(values: Mapping[Any, Any], place: str) -> Iterator[tuple[Any, bool]]:
    named = {_snake_case(str(key)): value for key, value in values.items()}
    is_adapter = _snake_case(place) in _ADAPTER_PLACES or not named.keys().isdisjoint(_RANKS)
    for name, value in named.items():
        last = name.rpartition(".")[2]
        if isinstance(value, bool):
            continue
        if last in _OWN_ALPHAS or (is_adapter and last == "alpha"):
            yield value, False
        elif is_adapter and last in _FACTORS:
            yield value, True


def _snake_case(name: str) -> str:
    """The name in the form of Python: `loraAlpha` and `--lora-alpha` are `lora_alpha`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.lstrip("-"))
    return words.replace("-", "_").lower()


def read_object(source: str, text: str) -> Mapping[str, Any]:
    """An object of JSON in the metadata. LoraUnusable if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise LoraUnusable(f"has {source} that cannot be read")
    return value


def stated_number(source: str, value: Any) -> float:
    """A number of a statement. LoraUnusable if it is not one."""
    number = _float(value)
    if not math.isfinite(number) or isinstance(value, bool):
        raise LoraUnusable(f"has {source} with {str(value)[:40]!r} instead of a number")
    return number


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _walk(
    values: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The settings of each place, with the names before them: {"a": {"b.r": 4}} is (a, b), r."""
    found: dict[tuple[str, ...], dict[str, Any]] = defaultdict(dict)
    has_numbers = not values.keys().isdisjoint((*ALPHA_NAMES, *RANK_NAMES))
    for key, value in values.items():
        *before, name = key.split(".")
        place = (*path, *before)
        # What stands beside alpha and rank are settings of their own, such as eva_config.
        if isinstance(value, dict) and not has_numbers and len(place) < _MAX_DEPTH:
            yield from _walk(value, (*place, name))
        else:
            found[place][name] = value
    yield from found.items()


def _part(path: tuple[str, ...]) -> LoraPart | None:
    """The part that the names before a setting mean. None: all parts, also for other names."""
    for pattern, part in _PARTS:
        if any(pattern.search(name) for name in path):
            return part
    return None

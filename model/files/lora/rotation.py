"""Reads how `oft_R` gives rotations: from peft's configuration, or from OneTrainer's metadata.

The tensor holds skew-symmetric matrices Q. What R is made of Q is stated beside it only.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import LoraUnusable
from model.files.lora.statements import ADAPTER_CONFIG, read_object

_MAX_TERMS = 64
_ONETRAINER_BRANCH, _ONETRAINER_CONFIG = "ot_branch", "ot_config"
_ONETRAINER_FORMULAS = ("oft_coft", "oft_cans")
"""Settings of other versions of OneTrainer that change the formula."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """How R is made of Q: the sum of `series`[i] Q^i, or (I - Q)(I + Q)^-1 if there is no series.

    `limit` is the largest Frobenius norm of the matrices Q, divided by the root of their number.
    """

    series: tuple[float, ...] | None
    limit: float | None = None


def read_rotation(
    metadata: Mapping[str, str], adapter_config: Mapping[str, Any] | None, *, is_scaled: bool
) -> Rotation:
    """The one statement about a file with `oft_R`. `is_scaled`: it has OneTrainer's `scaled_oft`.

    Raises:
        LoraUnusable: there is no statement, it contradicts the file, or its formula is not known.
    """
    is_onetrainer = _ONETRAINER_BRANCH in metadata
    if is_onetrainer == (adapter_config is not None):
        found = "both" if is_onetrainer else "neither"
        raise LoraUnusable(
            f"has oft_R, whose formula is stated by peft's {ADAPTER_CONFIG} or OneTrainer's "
            f"{_ONETRAINER_BRANCH}; it has {found}"
        )
    if adapter_config is None:
        return _of_onetrainer(metadata)
    if is_scaled:
        raise LoraUnusable(f"has OneTrainer's scaled_oft, but also {ADAPTER_CONFIG}")
    return _of_peft(adapter_config)


def _of_onetrainer(metadata: Mapping[str, str]) -> Rotation:
    """OneTrainer's formula, the same since it trains this model. Its branches may have others."""
    branch = metadata[_ONETRAINER_BRANCH]
    if branch != "master":
        raise LoraUnusable(
            f"has oft_R of a version of OneTrainer whose formula is not known: "
            f"{_ONETRAINER_BRANCH} is {branch[:40]!r}, not 'master'"
        )
    if _ONETRAINER_CONFIG in metadata:
        settings = read_object(_ONETRAINER_CONFIG, metadata[_ONETRAINER_CONFIG])
        for name in _ONETRAINER_FORMULAS:
            if settings.get(name):
                raise LoraUnusable(f"has oft_R of a formula that is not supported: {name}")
    return Rotation(_series(terms=5))


def _of_peft(config: Mapping[str, Any]) -> Rotation:
    if config.get("peft_type") != "OFT":
        raise LoraUnusable(f"has oft_R, but {ADAPTER_CONFIG} is not of OFT")
    if config.get("fan_in_fan_out") is True:
        raise LoraUnusable(f"is for transposed weights: {ADAPTER_CONFIG} says fan_in_fan_out")
    return Rotation(_peft_series(config), _peft_limit(config))


def _peft_limit(config: Mapping[str, Any]) -> float | None:
    """The limit of constrained OFT; None if it is not constrained."""
    if not config.get("coft"):
        return None
    limit: Any = config.get("eps")
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if not is_number or not 0 <= limit < math.inf:
        raise LoraUnusable(f"has {ADAPTER_CONFIG} with coft and without eps")
    return float(limit)


def _peft_series(config: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Peft writes its version since 0.18, which is also the first with the present series."""
    is_series = config.get("use_cayley_neumann")
    if not isinstance(is_series, bool):
        raise LoraUnusable(f"has {ADAPTER_CONFIG} of OFT without use_cayley_neumann")
    if not is_series:
        return None
    terms, version = config.get("num_cayley_neumann_terms"), config.get("peft_version")
    if not isinstance(terms, int) or isinstance(terms, bool) or not 0 < terms <= _MAX_TERMS:
        raise LoraUnusable(
            f"has {ADAPTER_CONFIG} with num_cayley_neumann_terms {str(terms)[:40]}; "
            f"must be 1 to {_MAX_TERMS}"
        )
    if version is None:
        return (1.0,) + (2.0,) * (terms - 1)
    numbers = re.match(r"(\d{1,9})\.(\d{1,9})\.", str(version))
    is_older = numbers is None or (int(numbers[1]), int(numbers[2])) < (0, 18)
    if is_older or re.match(r"0\.18\.0[^+@]", str(version)):
        raise LoraUnusable(
            f"has oft_R of a version of peft whose formula is not known: {str(version)[:40]}"
        )
    return _series(terms)


def _series(terms: int) -> tuple[float, ...]:
    """The first terms of (I + Q)(I - Q)^-1, the last with half of its factor; two at least Q^3."""
    if terms < 3:
        return (1.0, 2.0)[:terms]
    middle = (2.0,) * max(terms - 2, 2)
    return (1.0, *middle, 1.0)

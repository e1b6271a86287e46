"""Reads the headers of weight files: each weight by a clean name, ready to be sorted into parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.errors import CheckpointError
from model.files.safetensors_header import SUFFIX, StoredTensor, first_keys, read_header
from model.files.stored_weights.leftovers import leftover_kind, without_wrappers
from model.files.stored_weights.quantised import apply_scales


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The tensors of a file, or of the file or shards in a folder.

    `raw` holds all tensors by their keys. `weights` holds those that a part may need, by their
    keys without wrappers; float8 weights know their scales. `passed_over` lists the keys of the
    others by what they are. `problems` say why weights cannot be read, for example int8.
    """

    path: Path
    raw: Mapping[str, StoredTensor]
    weights: Mapping[str, StoredTensor]
    passed_over: Mapping[str, list[str]]
    problems: list[str]


def read_weights(path: Path) -> StoredWeights:
    """Read the headers of the weight files at `path`.

    Raises:
        CheckpointError: a file is missing, pickled or truncated, holds no weights, or two keys
            name one weight.
    """
    raw: dict[str, StoredTensor] = {}
    metadata: list[Mapping[str, str]] = []
    for file in weight_files(path):
        header = read_header(file)
        metadata.append(header.metadata)
        for key, tensor in header.tensors.items():
            if key in raw:
                raise CheckpointError(f"{file}: {key} is in {raw[key].path.name} too")
            raw[key] = tensor
    named: dict[str, StoredTensor] = {}
    passed_over: dict[str, list[str]] = {}
    for key, tensor in raw.items():
        name = without_wrappers(key)
        kind = leftover_kind(name)
        if kind:
            passed_over.setdefault(kind, []).append(key)
        elif name in named:
            raise CheckpointError(f"{path}: {named[name].key} and {key} name the same weight")
        else:
            named[name] = tensor
    if not named:
        kinds = "; ".join(f"{kind}: {first_keys(keys)}" for kind, keys in passed_over.items())
        raise CheckpointError(f"{path} has no weights" + (f", only {kinds}" if kinds else ""))
    weights, scales, problems = apply_scales(named, metadata)
    if scales:
        passed_over["scale of float8 weights"] = scales
    return StoredWeights(path, raw, weights, passed_over, problems)


def weight_files(path: Path) -> list[Path]:
    """The weight files at `path`: itself, or the single file or the shards in a folder."""
    if not path.is_dir():
        return [path]
    indexes = list(path.glob(f"*{SUFFIX}.index.json"))
    if len(indexes) == 1:
        return [path / name for name in _shards(indexes[0])]
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        pickled = sorted(p.name for p in path.glob("*.bin"))
        also = f" (pickles are refused: {', '.join(pickled)})" if pickled else ""
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(
            f"{path} must have one {SUFFIX} file or one index; it has {names}{also}"
        )
    return found


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{index} is not an index of shards: {exc}") from exc
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is not a file beside it")
    return sorted(names)

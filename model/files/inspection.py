"""Inspects weight files: parts, layout, sizes, origin, and the parts missing to run them.

Reads headers, and whole files only for their hash. Does not need torch.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from model.card import Card
from model.errors import CheckpointError, LoraUnusable
from model.files.layouts import (
    SUBFOLDERS,
    CheckpointPart,
    find_quantised,
    is_library_folder,
    is_lora,
    read_tensors,
    sort_into_parts,
    tokenizer_folders,
    weight_files,
)
from model.files.lora_keys import summarise
from model.files.safetensors_header import StoredTensor, first_keys, read_header

PARTS = {
    "transformer": "transformer",
    "conditioner": "text adapter",
    "text_encoder": "text encoder",
    "vae": "VAE",
}
"""The parts of a checkpoint and their labels."""


_ORIGIN = re.compile(
    r"^(modelspec\.(title|architecture|author|date|license|resolution|merged_from|trigger_phrase)"
    r"|modelspec\.base_model|ss_(base_model_version|sd_model_name|sd_model_hash|output_name|training_comment"
    r"|network_module|network_dim|network_alpha)|base_model.*)$"
)
_MAX_ORIGIN_CHARS = 200
_INDEX = re.compile(r"(?:^|[._])(blocks|layers)\.(\d+)\.")
_WIDTHS = {
    "transformer": "patch_embed.proj.weight",
    "conditioner": "out_proj.weight",
    "text_encoder": "norm.weight",
}
_NEEDED = {
    "transformer": (
        "patch_embed.proj.weight",
        "time_embed.t_embedder.linear_1.weight",
        "time_embed.t_embedder.linear_2.weight",
        "time_embed.norm.weight",
        "norm_out.linear_1.weight",
        "norm_out.linear_2.weight",
        "proj_out.weight",
    ),
    "conditioner": ("embed.weight", "out_proj.weight", "out_proj.bias", "norm.weight"),
    "text_encoder": ("embed_tokens.weight", "norm.weight"),
    "vae": ("encoder.conv_in.weight", "quant_conv.weight", "decoder.conv_out.weight"),
}
"""The tensors that a part has outside its blocks, by the library's names."""

_CHUNK_BYTES = 1 << 22


class PartReport(BaseModel):
    """One part of a checkpoint. `blocks` and `width` are None if the part has none."""

    name: str
    layout: str
    prefix: str
    tensors: int
    parameters: int
    blocks: int | None
    width: int | None
    dtypes: dict[str, int]


class LoraReport(BaseModel):
    """A LoRA as described by its keys: method, rank, and the parts that it changes."""

    method: str
    rank: int | None
    parts: list[str]


class FileReport(BaseModel):
    """One file. `size` is in bytes; `sha256` is None if it was not requested."""

    path: Path
    size: int
    sha256: str | None


class InspectionReport(BaseModel):
    """The contents of a path. `problems` make it unusable; `missing` parts must be added."""

    path: Path
    kind: str
    parts: list[PartReport] = []
    files: list[FileReport] = []
    tensors: int = 0
    parameters: int = 0
    dtypes: dict[str, int] = {}
    origin: dict[str, str] = {}
    lora: LoraReport | None = None
    problems: list[str]
    missing: list[str] = []


def inspect_weights(
    path: Path, card: Card, *, has_hash: bool, on_bytes: Callable[[int], object] | None = None
) -> InspectionReport:
    """Inspect a weight file, a folder saved by diffusers, or a folder of the card's files.

    `on_bytes` is called with the number of bytes after every few hashed megabytes. If the path
    cannot be read, for example a pickle or a truncated file, the reason is the only problem.
    """
    try:
        return _inspect(path, card, has_hash=has_hash, on_bytes=on_bytes)
    except CheckpointError as exc:
        return InspectionReport(path=path, kind="refused", problems=[str(exc)])


def weight_bytes(path: Path, card: Card) -> int:
    """Total size of the weight files at `path` in bytes; 0 if they cannot be read."""
    try:
        files = [file for place in _places(path, card) for file in weight_files(place)]
        return sum(read_header(file).size for file in files)
    except CheckpointError:
        return 0


def _inspect(
    path: Path, card: Card, *, has_hash: bool, on_bytes: Callable[[int], object] | None
) -> InspectionReport:
    places = _places(path, card)
    stored = {place: read_tensors(place) for place in places}
    everything = [tensor for tensors in stored.values() for tensor in tensors.values()]
    files = [file for place in places for file in weight_files(place)]
    report = InspectionReport(
        path=path,
        kind="LoRA",
        files=[_file_report(file, has_hash=has_hash, on_bytes=on_bytes) for file in files],
        tensors=len(everything),
        parameters=sum(tensor.count for tensor in everything),
        dtypes=dict(Counter(tensor.dtype for tensor in everything)),
        origin=_origin(files),
        problems=[],
    )
    if is_lora(tensor.key for tensor in everything):
        _describe_lora(report, {tensor.key: tensor for tensor in everything})
    else:
        _describe_checkpoint(report, card, stored)
    return report


def _describe_lora(report: InspectionReport, tensors: Mapping[str, StoredTensor]) -> None:
    try:
        summary = summarise(tensors)
    except LoraUnusable as exc:
        report.problems.append(str(exc))
        return
    report.lora = LoraReport(
        method=summary.method, rank=summary.rank, parts=[str(part) for part in summary.parts]
    )


def _describe_checkpoint(
    report: InspectionReport, card: Card, stored: Mapping[Path, Mapping[str, StoredTensor]]
) -> None:
    parts: dict[str, CheckpointPart] = {}
    for place, tensors in stored.items():
        found, unknown = sort_into_parts(place, tensors)
        parts |= found
        if unknown:
            report.problems.append(f"{place} has unknown {first_keys(unknown)}")
    bad = find_quantised(tensor for tensors in stored.values() for tensor in tensors.values())
    if bad:
        report.problems.append(
            f"{bad.path}: {bad.key} ({bad.dtype}) is quantised, which is not supported"
        )
    report.problems += [
        problem for name, part in parts.items() for problem in _missing_tensors(name, part)
    ]
    report.kind = _kind(report.path, parts, is_quantised=bad is not None)
    report.parts = [_part_report(name, parts[name]) for name in PARTS if name in parts]
    report.missing = _missing_parts(report.path, card, parts)


def file_sha256(path: Path, on_bytes: Callable[[int], object] | None = None) -> str:
    """The SHA-256 of a file. `on_bytes` is called with the bytes after every few megabytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


def _places(path: Path, card: Card) -> list[Path]:
    """The files, or folders of one part, that make up the checkpoint at `path`."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist")
    if is_library_folder(path):
        return [path / name for name in SUBFOLDERS.values() if (path / name).is_dir()]
    paths = [
        path / f.path for f in (card.files.transformer, card.files.text_encoder, card.files.vae)
    ]
    found = [place for place in dict.fromkeys(paths) if place.exists()]
    return found or [path]


def _kind(path: Path, parts: Mapping[str, CheckpointPart], *, is_quantised: bool) -> str:
    names = ", ".join(label for name, label in PARTS.items() if name in parts)
    if path.is_dir():
        is_whole = is_library_folder(path)
        what = "diffusers folder" if is_whole else f"folder with {names or 'weights'}"
    elif "vae" in parts and len(parts) > 1:
        what = f"all-in-one checkpoint ({names})"
    else:
        what = names or "not an Anima checkpoint"
    return f"quantised {what}" if is_quantised else what


def _part_report(name: str, part: CheckpointPart) -> PartReport:
    indexes = {int(match[2]) for key in part.tensors if (match := _INDEX.search(key))}
    width = part.tensors.get(part.stored_name(_WIDTHS[name])) if name in _WIDTHS else None
    return PartReport(
        name=name,
        layout=part.layout,
        prefix=part.prefix,
        tensors=len(part.tensors),
        parameters=sum(tensor.count for tensor in part.tensors.values()),
        blocks=len(indexes) if name != "vae" else None,
        width=width.shape[0] if width and width.shape else None,
        dtypes=dict(Counter(tensor.dtype for tensor in part.tensors.values())),
    )


def _missing_tensors(name: str, part: CheckpointPart) -> Iterable[str]:
    """Yield the problem if a part lacks tensors. All blocks must have the same names."""
    wanted = {part.stored_name(needed) for needed in _NEEDED[name]}
    if name != "vae":
        places = [match for key in part.tensors if (match := _INDEX.search(key))]
        inner = {match.string[match.end() :] for match in places}
        heads = {match.string[: match.start(2)] for match in places}
        count = 1 + max((int(match[2]) for match in places), default=-1)
        wanted |= {
            f"{head}{index}.{rest}"
            for head in heads
            for index in range(min(count, len(part.tensors)))
            for rest in inner
        }
    missing = sorted(wanted - set(part.tensors))
    if missing:
        yield f"{part.path} lacks {first_keys(missing)}"


def _file_report(
    file: Path, *, has_hash: bool, on_bytes: Callable[[int], object] | None
) -> FileReport:
    digest = file_sha256(file, on_bytes) if has_hash else None
    return FileReport(path=file, size=file.stat().st_size, sha256=digest)


def _origin(files: Iterable[Path]) -> dict[str, str]:
    """Metadata about the origin of the files."""
    metadata: dict[str, Any] = {}
    for file in files:
        metadata |= read_header(file).metadata
    return {
        key: value[:_MAX_ORIGIN_CHARS]
        for key, value in sorted(metadata.items())
        if _ORIGIN.match(key)
    }


def _missing_parts(path: Path, card: Card, parts: Mapping[str, CheckpointPart]) -> list[str]:
    """The parts and tokenizers that the card also needs, each with its expected path."""
    files = card.files
    paths = {
        "transformer": files.transformer.path,
        "conditioner": files.transformer.path,
        "text_encoder": files.text_encoder.path,
        "vae": files.vae.path,
    }
    missing = [
        f"{label}: {card.name} expects it at {paths[name]}"
        for name, label in PARTS.items()
        if name not in parts
    ]
    folders = tokenizer_folders(files, path) if path.is_dir() else (None, None)
    places = (files.qwen_tokenizer, files.t5_tokenizer)
    return missing + [
        f"tokenizer: {card.name} expects it at {place}"
        for folder, place in zip(folders, places, strict=True)
        if folder is None or not folder.is_dir()
    ]

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
from model.files.checkpoint_check import VocabularySizes, find_problems
from model.files.layouts import (
    PARTS,
    CheckpointPart,
    is_library_folder,
    is_lora,
    part_places,
    sort_into_parts,
    tokenizer_folders,
)
from model.files.lora.folder import CheckLora, check_without_checkpoint, read_lora
from model.files.lora.keys import summarise
from model.files.safetensors_header import StoredTensor, read_header
from model.files.stored_weights.finite import first_not_finite
from model.files.stored_weights.quantised import is_float8
from model.files.stored_weights.reading import StoredWeights, read_weights, weight_files

PART_LABELS = {
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
    """The contents of a path. `problems` make it unusable; `missing` parts must be added.

    `passed_over` lists the keys that loading does not need, by what they are. `notes` are facts
    that an operator should know.
    """

    path: Path
    kind: str
    parts: list[PartReport] = []
    files: list[FileReport] = []
    tensors: int = 0
    parameters: int = 0
    dtypes: dict[str, int] = {}
    origin: dict[str, str] = {}
    lora: LoraReport | None = None
    passed_over: dict[str, list[str]] = {}
    notes: list[str] = []
    problems: list[str]
    missing: list[str] = []


def inspect_weights(
    path: Path,
    card: Card,
    *,
    has_hash: bool,
    vocabulary_sizes: VocabularySizes,
    check_lora: CheckLora = check_without_checkpoint,
    on_bytes: Callable[[int], object] | None = None,
) -> InspectionReport:
    """Inspect a weight file, a folder saved by diffusers, or a folder of the card's files.

    `vocabulary_sizes` loads the tokenizers of a folder, to compare them with its embeddings.
    `check_lora` is the check of LoRA files, as for requests.
    `on_bytes` is called with the number of bytes after every few hashed megabytes. If the path
    cannot be read, for example a pickle or a truncated file, the reason is the only problem.
    """
    try:
        return _inspect(
            path, card, vocabulary_sizes, check_lora, has_hash=has_hash, on_bytes=on_bytes
        )
    except CheckpointError as exc:
        return InspectionReport(path=path, kind="refused", problems=[str(exc)])


def weight_bytes(path: Path, card: Card) -> int:
    """Total size of the weight files at `path` in bytes; 0 if they cannot be read."""
    try:
        files = [file for place, _ in _places(path, card) for file in weight_files(place)]
        return sum(read_header(file).size for file in files)
    except CheckpointError:
        return 0


def _inspect(
    path: Path,
    card: Card,
    vocabulary_sizes: VocabularySizes,
    check_lora: CheckLora,
    *,
    has_hash: bool,
    on_bytes: Callable[[int], object] | None,
) -> InspectionReport:
    parts, read, problems = _read(path, card)
    is_adapter = read[0].path == path and is_lora(read[0].raw)
    tensors = [
        tensor
        for stored in read
        for tensor in (stored.raw if is_adapter else stored.weights).values()
    ]
    files = [file for stored in read for file in weight_files(stored.path)]
    report = InspectionReport(
        path=path,
        kind="LoRA",
        files=[_file_report(file, has_hash=has_hash, on_bytes=on_bytes) for file in files],
        tensors=len(tensors),
        parameters=sum(tensor.count for tensor in tensors),
        dtypes=dict(Counter(tensor.dtype for tensor in tensors)),
        origin=_origin(files),
        problems=[],
    )
    if is_adapter:
        _describe_lora(report, check_lora)
        report.problems += _not_finite(tensors) if has_hash else []
        return report
    if has_hash:
        problems += _not_finite(tensors)
    try:
        vocabularies = _vocabularies(path, card, vocabulary_sizes)
    except CheckpointError as exc:
        vocabularies = None
        problems.append(str(exc))
    report.problems = [
        *problems,
        *find_problems(parts, card, vocabularies),
        *_checksum_problems(report, card),
    ]
    report.kind = _kind(path, parts, is_quantised=any(stored.problems for stored in read))
    report.parts = [_part_report(name, parts[name]) for name in PARTS if name in parts]
    report.missing = _missing_parts(path, card, parts)
    for stored in read:
        for kind, keys in stored.passed_over.items():
            report.passed_over.setdefault(kind, []).extend(keys)
    report.notes = [*_float8_notes(tensors), *_checksum_notes(report, card, parts)]
    return report


def _read(
    path: Path, card: Card
) -> tuple[dict[str, CheckpointPart], list[StoredWeights], list[str]]:
    """The parts that loading would use, their files, and what refuses the files."""
    parts: dict[str, CheckpointPart] = {}
    read, problems = [], []
    for place, names in _places(path, card):
        if set(names) <= set(parts):
            continue
        stored = read_weights(place)
        read.append(stored)
        if is_lora(stored.raw):
            problems.append(f"{place} is a LoRA, not a checkpoint")
            continue
        found, refused = sort_into_parts(stored)
        parts |= {name: part for name, part in found.items() if name in names}
        problems += refused
    return parts, read, problems


def _vocabularies(
    path: Path, card: Card, vocabulary_sizes: VocabularySizes
) -> tuple[int, int] | None:
    if not path.is_dir():
        return None
    qwen, t5 = tokenizer_folders(card.files, path)
    return vocabulary_sizes(qwen, t5) if qwen.is_dir() and t5.is_dir() else None


def _describe_lora(report: InspectionReport, check_lora: CheckLora) -> None:
    try:
        contents = read_lora(report.files[0].path)
        summary = summarise(contents.tensors)
        check_lora(contents)
    except LoraUnusable as exc:
        report.problems.append(str(exc))
        return
    report.lora = LoraReport(
        method=summary.method, rank=summary.rank, parts=[str(part) for part in summary.parts]
    )


def file_sha256(path: Path, on_bytes: Callable[[int], object] | None = None) -> str:
    """The SHA-256 of a file. `on_bytes` is called with the bytes after every few megabytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return digest.hexdigest()


def _places(path: Path, card: Card) -> list[tuple[Path, tuple[str, ...]]]:
    """The files, or folders of one part, that loading reads from `path`, as `part_places`."""
    if path.is_file():
        return [(path, PARTS)]
    if not path.is_dir():
        raise CheckpointError(f"{path} does not exist")
    found = [(place, names) for place, names in part_places(card.files, path) if place.exists()]
    return found or [(path, PARTS)]


def _kind(path: Path, parts: Mapping[str, CheckpointPart], *, is_quantised: bool) -> str:
    names = ", ".join(label for name, label in PART_LABELS.items() if name in parts)
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


def _not_finite(tensors: Iterable[StoredTensor]) -> list[str]:
    found = first_not_finite(tensors)
    return [f"{found.path}: {found.key} has numbers that are not finite"] if found else []


def _float8_notes(tensors: Iterable[StoredTensor]) -> Iterable[str]:
    counts = Counter(tensor.dtype for tensor in tensors if is_float8(tensor))
    for dtype, count in counts.items():
        yield f"{count} {dtype} weights (float8) are widened to bfloat16 when loaded"


def _checksum_problems(report: InspectionReport, card: Card) -> list[str]:
    """The files at the card's paths that have another hash than the card says."""
    hashes = {file.path: file.sha256 for file in report.files if file.sha256}
    return [
        f"{report.path / file.path} has sha256 {found}; the card says {file.sha256}"
        for file in (card.files.transformer, card.files.text_encoder, card.files.vae)
        if (found := hashes.get(report.path / file.path)) and file.sha256 not in (None, found)
    ]


def _checksum_notes(
    report: InspectionReport, card: Card, parts: Mapping[str, CheckpointPart]
) -> Iterable[str]:
    """What the checksums of the card mean for files that were not compared with them."""
    files = card.files
    by_part = {"transformer": files.transformer, "text_encoder": files.text_encoder}
    by_part["vae"] = files.vae
    if report.path.is_dir():
        named = [name for name in by_part if name in parts and not report.files[0].sha256]
    else:
        named = [name for name in by_part if name in parts][:1]
    for name in named:
        file = by_part[name]
        if file.sha256 and report.files[0].sha256 is None:
            yield f"the checksum of {card.name}'s {PART_LABELS[name]} was not compared"
        elif file.sha256 not in (None, report.files[0].sha256):
            yield (
                f"{card.name} expects a {PART_LABELS[name]} with another checksum and refuses this "
                f"file at {file.path}"
            )


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
        for name, label in PART_LABELS.items()
        if name not in parts
    ]
    folders = tokenizer_folders(files, path) if path.is_dir() else (None, None)
    places = (files.qwen_tokenizer, files.t5_tokenizer)
    return missing + [
        f"tokenizer: {card.name} expects it at {place}"
        for folder, place in zip(folders, places, strict=True)
        if folder is None or not folder.is_dir()
    ]

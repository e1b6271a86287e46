"""Writes a checkpoint of any layout as the files that a card names.

Renames and copies tensors byte for byte, with their metadata. Only float8 weights change: they
become bfloat16, as in loading. Does not need torch.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.card import Card
from model.errors import CheckpointError
from model.files.checkpoint_check import (
    PATCHES,
    CheckedPart,
    VocabularySizes,
    check_parts,
    require_vocabularies,
)
from model.files.keymap import (
    TRANSFORMER_PREFIX,
    adapter_to_original,
    text_encoder_to_original,
    transformer_to_original,
    vae_to_original,
)
from model.files.layouts import (
    SUBFOLDERS,
    TOKENIZER_FILES,
    CheckpointPart,
    find_parts,
    is_library_folder,
    tokenizer_folders,
)
from model.files.safetensors_header import (
    DTYPE_BYTES,
    SUFFIX,
    StoredTensor,
    encode_header,
    read_header,
)
from model.files.stored_weights.finite import first_not_finite
from model.files.stored_weights.float8 import bfloat16_codes, widen
from model.files.stored_weights.quantised import QUANTISATION_METADATA, is_float8
from model.files.weight_shapes import PATCH, TransformerSizes

_CHUNK_BYTES = 1 << 22
OnBytes = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A written file and its content."""

    path: Path
    content: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor to write: its new name, its source, and the zero columns to add to every row."""

    key: str
    stored: StoredTensor
    columns: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        if not self.columns:
            return self.stored.shape
        return (self.stored.shape[0], self.stored.shape[1] + self.columns)

    @property
    def dtype(self) -> str:
        return "BF16" if is_float8(self.stored) else self.stored.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def convert_checkpoint(
    source: Path,
    target: Path,
    card: Card,
    *,
    vocabulary_sizes: VocabularySizes,
    on_bytes: OnBytes | None = None,
) -> list[WrittenFile]:
    """Convert the checkpoint at `source` and write it to `target`. The source is not changed.

    A `target` that ends in `.safetensors` receives the transformer and its adapter. A folder
    receives all parts and tokenizers of the source, under the card's names. `vocabulary_sizes`
    loads the tokenizers, to compare them with the embeddings. `on_bytes` is called with the number
    of bytes after every few megabytes.

    Raises:
        CheckpointError: the source cannot be loaded, a target file exists already, or there is
            too little disk space.
    """
    parts = check_parts(_read(source), card)
    qwen, t5 = tokenizer_folders(card.files, source)
    if qwen.is_dir() and t5.is_dir():
        require_vocabularies(parts, vocabulary_sizes(qwen, t5))
    files = dict(_plan_files(parts, target, card))
    if not files:
        raise CheckpointError(f"{source} has no transformer with its adapter to write")
    tokenizers = {} if target.suffix == SUFFIX else dict(_tokenizers(source, target, card))
    for path in [*files, *tokenizers.values()]:
        if path.exists():
            raise CheckpointError(f"{path} exists already; move it away first")
    _require_space(target, sum(e.size for _, entries in files.values() for e in entries))
    _require_finite(entry.stored for _, entries in files.values() for entry in entries)
    written = []
    for path, (content, entries) in files.items():
        _write(path, entries, on_bytes or (lambda count: None))
        written.append(WrittenFile(path, content))
    for folder, copy in tokenizers.items():
        copy.mkdir(parents=True)
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, copy / name)
        written.append(WrittenFile(copy, "tokenizer"))
    return written


def total_bytes(source: Path) -> int:
    """Total size of the weights at `source` in bytes."""
    return sum(t.size for part in _read(source).values() for t in part.tensors.values())


def _read(source: Path) -> dict[str, CheckpointPart]:
    if not is_library_folder(source):
        return find_parts(source)
    folders = [source / name for name in SUBFOLDERS.values() if (source / name).is_dir()]
    return {name: part for folder in folders for name, part in find_parts(folder).items()}


def _plan_files(
    parts: dict[str, CheckedPart], target: Path, card: Card
) -> Iterator[tuple[Path, tuple[str, list[_Entry]]]]:
    is_file = target.suffix == SUFFIX
    files = card.files
    if "transformer" in parts and "conditioner" in parts:
        path = target if is_file else target / files.transformer.path
        entries = _entries(parts["transformer"], _transformer_name)
        entries += _entries(parts["conditioner"], _adapter_name)
        yield path, ("transformer and text adapter", entries)
    if is_file:
        return
    if "text_encoder" in parts:
        entries = _entries(parts["text_encoder"], text_encoder_to_original)
        yield target / files.text_encoder.path, ("text encoder", entries)
    if "vae" in parts:
        entries = _entries(
            parts["vae"], lambda name: vae_to_original(name, card.vae.num_res_blocks)
        )
        yield target / files.vae.path, ("VAE", entries)


def _entries(checked: CheckedPart, published_name: Callable[[str], str]) -> list[_Entry]:
    """The tensors of a part with their published names, in the order of the source."""
    stored = sorted(checked.stored.items(), key=lambda entry: (entry[1].path, entry[1].offset))
    return [
        _Entry(published_name(name), tensor, _missing_columns(checked, name, tensor))
        for name, tensor in stored
    ]


def _missing_columns(checked: CheckedPart, name: str, tensor: StoredTensor) -> int:
    """The padding mask's columns, which published files have and other programs may not save.

    Their values do not matter, because the mask is zero.
    """
    if name != PATCHES:
        return 0
    sizes: TransformerSizes = checked.sizes
    return PATCH**2 * (sizes.latent_channels + 1) - tensor.shape[1]


def _transformer_name(name: str) -> str:
    return TRANSFORMER_PREFIX + transformer_to_original(name)


def _adapter_name(name: str) -> str:
    return TRANSFORMER_PREFIX + adapter_to_original(name)


def _tokenizers(source: Path, target: Path, card: Card) -> Iterator[tuple[Path, Path]]:
    if is_library_folder(source):
        for name, path in (
            ("tokenizer", card.files.qwen_tokenizer),
            ("t5_tokenizer", card.files.t5_tokenizer),
        ):
            if (source / name).is_dir():
                yield source / name, target / path


def _require_space(target: Path, size: int) -> None:
    existing = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise CheckpointError(
            f"{target} needs {size / 1e9:.1f} GB; {existing} has {free / 1e9:.1f} GB free"
        )


def _require_finite(tensors: Iterable[StoredTensor]) -> None:
    try:
        found = first_not_finite(tensors)
    except OSError as exc:
        raise CheckpointError(f"cannot read the weights: {exc.strerror}") from exc
    if found:
        raise CheckpointError(f"{found.path}: {found.key} has numbers that are not finite")


def _write(path: Path, entries: list[_Entry], on_bytes: OnBytes) -> None:
    """Write one file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    metadata = _metadata(entries)
    try:
        with partial.open("wb") as out:
            out.write(encode_header(((e.key, e.dtype, e.shape) for e in entries), metadata))
            for entry in entries:
                _copy(entry, out, on_bytes)
        partial.replace(path)
    except OSError as exc:
        raise CheckpointError(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        partial.unlink(missing_ok=True)


def _metadata(entries: Iterable[_Entry]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for file in sorted({entry.stored.path for entry in entries}):
        metadata |= read_header(file).metadata
    metadata.pop(QUANTISATION_METADATA, None)  # float8 weights are written as bfloat16
    return metadata


def _copy(entry: _Entry, out: BinaryIO, on_bytes: OnBytes) -> None:
    stored = entry.stored
    codes = bfloat16_codes(stored.dtype, stored.scale) if is_float8(stored) else None
    rows = stored.shape[0] if entry.columns else 1
    zeros = bytes(entry.columns * DTYPE_BYTES[entry.dtype])
    with stored.path.open("rb") as file:
        file.seek(stored.offset)
        for _ in range(rows):
            left = stored.size // rows
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise CheckpointError(f"{stored.path} ended while it was read")
                out.write(widen(chunk, codes) if codes else chunk)
                left -= len(chunk)
                on_bytes(len(chunk))
            out.write(zeros)

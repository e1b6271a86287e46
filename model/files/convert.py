"""Writes a checkpoint of any layout as the files that a card names.

Renames and copies tensors byte for byte, with their precision and metadata. Does not need torch.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model.card import Card
from model.errors import CheckpointError
from model.files.keymap import (
    ADAPTER_PREFIX,
    TEXT_ENCODER_PREFIX,
    TRANSFORMER_PREFIX,
    transformer_to_original,
    vae_to_original,
)
from model.files.layouts import (
    LIBRARY,
    SUBFOLDERS,
    TOKENIZER_FILES,
    CheckpointPart,
    count_res_blocks,
    find_parts,
    is_library_folder,
)
from model.files.safetensors_header import (
    DTYPE_BYTES,
    SUFFIX,
    StoredTensor,
    encode_header,
    read_header,
)

_PATCHES = f"{TRANSFORMER_PREFIX}x_embedder.proj.1.weight"
_LAST = f"{TRANSFORMER_PREFIX}final_layer.linear.weight"
_MASK_COLUMNS = 4
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


def convert_checkpoint(
    source: Path, target: Path, card: Card, *, on_bytes: OnBytes | None = None
) -> list[WrittenFile]:
    """Convert the checkpoint at `source` and write it to `target`. The source is not changed.

    A `target` that ends in `.safetensors` receives the transformer and its adapter. A folder
    receives all parts and tokenizers of the source, under the card's names. `on_bytes` is called
    with the number of bytes after every few megabytes.

    Raises:
        CheckpointError: the source is unreadable or incomplete, a target file exists already, or
            there is too little disk space.
    """
    parts = _read(source)
    files = dict(_plan_files(parts, target, card))
    if not files:
        raise CheckpointError(f"{source} has no transformer with its adapter to write")
    tokenizers = {} if target.suffix == SUFFIX else dict(_tokenizers(source, target, card))
    for path in [*files, *tokenizers.values()]:
        if path.exists():
            raise CheckpointError(f"{path} exists already; move it away first")
    _require_space(target, sum(e.stored.size for _, entries in files.values() for e in entries))
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
    parts: dict[str, CheckpointPart], target: Path, card: Card
) -> Iterator[tuple[Path, tuple[str, list[_Entry]]]]:
    is_file = target.suffix == SUFFIX
    files = card.files
    if "transformer" in parts and "conditioner" in parts:
        path = target if is_file else target / files.transformer.path
        yield path, ("transformer and text adapter", _main_entries(parts))
    if is_file:
        return
    for name, label, file in (
        ("text_encoder", "text encoder", files.text_encoder),
        ("vae", "VAE", files.vae),
    ):
        if name in parts:
            yield target / file.path, (label, _entries(parts[name], name))


def _main_entries(parts: dict[str, CheckpointPart]) -> list[_Entry]:
    entries = _entries(parts["transformer"], "transformer")
    by_key = {entry.key: entry for entry in entries}
    patches, last = by_key.get(_PATCHES), by_key.get(_LAST)
    if patches and last and patches.stored.shape[1:] == last.stored.shape[:1]:
        # Saved without the padding mask's channel, which published files have. Its values do not
        # matter, because the mask is zero.
        entries[entries.index(patches)] = _Entry(patches.key, patches.stored, _MASK_COLUMNS)
    return entries + _entries(parts["conditioner"], "conditioner")


def _entries(part: CheckpointPart, name: str) -> list[_Entry]:
    """The tensors of a part with their new names."""
    try:
        return [_Entry(_published(part, name, key), t) for key, t in part.tensors.items()]
    except KeyError as exc:
        raise CheckpointError(f"{part.path} has unknown {exc.args[0]}") from exc


def _published(part: CheckpointPart, name: str, key: str) -> str:
    """The tensor's name in a published file."""
    bare = key.removeprefix(part.prefix)
    if name == "conditioner":
        bare = bare.removeprefix(ADAPTER_PREFIX)
        return TRANSFORMER_PREFIX + ADAPTER_PREFIX + bare
    if name == "text_encoder":
        return TEXT_ENCODER_PREFIX + bare
    if name == "vae":
        return (
            vae_to_original(bare, count_res_blocks(part.tensors))
            if part.layout == LIBRARY
            else bare
        )
    return TRANSFORMER_PREFIX + (transformer_to_original(bare) if part.layout == LIBRARY else bare)


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


def _write(path: Path, entries: list[_Entry], on_bytes: OnBytes) -> None:
    """Write one file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    metadata = _metadata(entries)
    try:
        with partial.open("wb") as out:
            out.write(encode_header(((e.key, e.stored.dtype, e.shape) for e in entries), metadata))
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
    return metadata


def _copy(entry: _Entry, out: BinaryIO, on_bytes: OnBytes) -> None:
    with entry.stored.path.open("rb") as file:
        file.seek(entry.stored.offset)
        if entry.columns:
            zeros = bytes(entry.columns * DTYPE_BYTES[entry.stored.dtype])
            rows = entry.stored.shape[0]
            for _ in range(rows):
                out.write(file.read(entry.stored.size // rows) + zeros)
            on_bytes(entry.stored.size)
            return
        left = entry.stored.size
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise CheckpointError(f"{entry.stored.path} ended while it was read")
            out.write(chunk)
            left -= len(chunk)
            on_bytes(len(chunk))

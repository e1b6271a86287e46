"""Tells which of a card's files a folder has, before anything is loaded, and what mends it.

Reads names and headers only; does not need torch.
"""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from model.card import Card, Source, shipped_folder
from model.errors import CheckpointError
from model.files.layouts import (
    find_parts,
    has_part,
    library_folder,
    tokenizer_folders,
)

_MAX_ENTRIES = 2000
"""Files and folders that are looked at for a part that is not where it should be."""


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file that a card needs, with its path, source and SHA-256.

    `parts` are the parts that a weight file must contain; a tokenizer is a folder without parts.
    """

    what: str
    path: Path
    parts: tuple[str, ...]
    sha256: str | None
    source: Source | None
    size_gb: float | None = None
    note: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a tokenizer."""
        return not self.parts


@dataclass(frozen=True, slots=True)
class Presence:
    """What the folder has of a file. `place` is None if it is missing.

    `problem` says why the file there cannot be used. `elsewhere` is a file or folder at another
    path that fits.
    """

    item: WantedFile
    place: Path | None = None
    problem: str = ""
    elsewhere: Path | None = None

    @property
    def is_usable(self) -> bool:
        """Whether nothing has to be done; the weights themselves are not checked."""
        return self.place is not None and not self.problem


def wanted(card: Card, folder: Path) -> list[WantedFile]:
    """All files that the card needs in `folder`, the transformer first."""
    files = card.files
    weights = [
        WantedFile(
            what, folder / file.path, parts, file.sha256, file.source, file.size_gb, file.note
        )
        for what, file, parts in (
            ("transformer and text adapter", files.transformer, ("transformer", "conditioner")),
            ("text encoder", files.text_encoder, ("text_encoder",)),
            ("VAE", files.vae, ("vae",)),
        )
    ]
    tokenizers = [
        WantedFile(what, folder / path, (), None, source)
        for what, path, source in (
            ("Qwen tokenizer", files.qwen_tokenizer, files.qwen_tokenizer_source),
            ("T5 tokenizer", files.t5_tokenizer, files.t5_tokenizer_source),
        )
    ]
    return weights + tokenizers


def find_files(card: Card, folder: Path) -> list[Presence]:
    """What `folder` has of each file that the card needs, in any layout."""
    items = wanted(card, folder)
    taken = {item.path for item in items}
    tokenizers = dict(zip(items[-2:], tokenizer_folders(card.files, folder), strict=True))
    rows: list[Presence] = []
    held: dict[str, Path] = {}
    if root := library_folder(card.files, folder):
        names = ("transformer", "conditioner", "text_encoder", "vae")
        held = {name: root for name in names if has_part(root, name)}
    for item in items:
        if item.is_folder:
            rows.append(_tokenizer(item, tokenizers[item], folder))
        elif held.keys() >= set(item.parts):
            rows.append(Presence(item, held[item.parts[0]]))
        else:
            row, found = _weights(item, folder, taken)
            rows.append(row)
            held |= dict.fromkeys(found, item.path)
    return rows


def _weights(item: WantedFile, folder: Path, taken: set[Path]) -> tuple[Presence, set[str]]:
    """What is at the path of a weight file, and the parts that are in it."""
    if not item.path.exists():
        return Presence(item, elsewhere=_elsewhere(item, folder, taken)), set()
    try:
        found = set(find_parts(item.path))
    except CheckpointError as exc:
        return Presence(item, item.path, str(exc)), set()
    absent = [name for name in item.parts if name not in found]
    if not absent:
        return Presence(item, item.path), found
    problem = f"it has no {' and no '.join(absent)}, but {' and '.join(sorted(found))}"
    return Presence(item, item.path, problem, _elsewhere(item, folder, taken)), found


def _elsewhere(item: WantedFile, folder: Path, taken: set[Path]) -> Path | None:
    """Another file in the folder with all parts of the item."""
    for path in _entries(folder):
        if path.suffix.lower() == ".safetensors" and path not in taken and path.is_file():
            try:
                if _may_be(item, path) and set(find_parts(path)) >= set(item.parts):
                    return path
            except CheckpointError:
                continue
    return None


def _may_be(item: WantedFile, path: Path) -> bool:
    """Whether the file could hold the item in some precision: not a model of another size."""
    return not item.size_gb or 0.2 < path.stat().st_size / (1e9 * item.size_gb) < 5


def _tokenizer(item: WantedFile, place: Path, folder: Path) -> Presence:
    if has_tokenizer(place):
        return Presence(item, place)
    is_t5 = item.what.startswith("T5")
    others = (
        path
        for path in _entries(folder)
        if ("t5" in path.name.lower()) == is_t5 and has_tokenizer(path)
    )
    problem = "it has neither tokenizer.json nor vocab.json and merges.txt"
    is_there = place.is_dir()
    return Presence(
        item,
        place if is_there else None,
        problem if is_there else "",
        next(others, None),
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has the files of a tokenizer, whatever is in them."""
    if (folder / "tokenizer.json").is_file():
        return True
    return all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))


def _entries(folder: Path) -> Iterable[Path]:
    """Files and folders below the folder, in a fixed order."""
    try:
        return sorted(islice(folder.rglob("*"), _MAX_ENTRIES))
    except OSError:
        return []


def why_incomplete(card: Card, folder: Path | None, *, fetch: str) -> str | None:
    """A table of the card's files and what mends it; None if `folder` has them all.

    None as `folder` means the folder in the package. `fetch` is the command that downloads files.
    """
    if folder is None:
        if shipped_folder(card).is_dir():
            return None
        head = (
            f"{card.name} does not ship with the package, and KIRAZURI_CHECKPOINT_DIR (or "
            "--checkpoint-dir) names no folder. It needs:"
        )
        rows = [Presence(item) for item in wanted(card, Path())]
    else:
        rows = find_files(card, folder)
        if all(row.is_usable for row in rows):
            return None
        if folder.is_file():
            head = f"{folder} is a file; the checkpoint folder of {card.name} is one that has:"
            return "\n".join([head, *table([Presence(row.item) for row in rows], folder)])
        lack = "is not complete" if folder.is_dir() else "does not exist"
        head = f"the checkpoint folder {folder} of {card.name} {lack}:"
    return "\n".join([head, *table(rows, folder or Path()), *_advice(rows, card, folder, fetch)])


def table(rows: Iterable[Presence], folder: Path) -> Iterator[str]:
    """A line for each file with its path in `folder`, and lines with what mends it."""
    for row in rows:
        path = row.item.path
        shown = path.relative_to(folder) if path.is_relative_to(folder) else path
        state = "missing" if row.place is None else "unusable" if row.problem else "there"
        size = f"  {row.item.size_gb} GB" if row.item.size_gb and row.place is None else ""
        where = f" (in {row.place})" if row.is_usable and row.place != path else ""
        yield f"  {state:<9} {row.item.what:<29} {shown}{where}{size}"
        if row.problem:
            yield f"            {row.problem}"
        if row.elsewhere:
            asks = ["-i"] if path.exists() else []  # another part, which may be wanted elsewhere
            move = shlex.join(["mv", *asks, str(row.elsewhere), str(path)])
            if not path.parent.is_dir():
                move = f"{shlex.join(['mkdir', '-p', str(path.parent)])} && {move}"
            yield f"            {row.elsewhere.name} fits: {move}"


def advice(row: Presence, card: Card, fetch: str) -> str:
    """What mends a file that is missing or cannot be used, if no other file fits.

    `fetch` is the command that downloads files; it does not replace any.
    """
    item = row.item
    by_hand = " ".join(filter(None, (item.note, card.page)))
    get = by_hand if item.source is None and item.parts and by_hand else fetch
    if not row.problem:
        return get
    where = "to the folder of KIRAZURI_LORA_DIR" if "is a LoRA" in row.problem else "away"
    return f"Move it {where} first. {get if get == by_hand else f'Then: {get}'}"


def _advice(rows: Iterable[Presence], card: Card, folder: Path | None, fetch: str) -> Iterator[str]:
    bad = [row for row in rows if not row.is_usable and row.elsewhere is None]
    for row in bad:
        if row.problem:
            yield f"{row.item.what}: {advice(row, card, fetch)}"
    missing = [row for row in bad if not row.problem]
    if folder and any(not row.item.is_folder for row in missing):
        yield from _unreadable(folder, {row.item.path for row in rows})
    if any(row.item.source for row in missing):
        yield f"To download what has an address: {fetch}"
    for row in missing:
        if not row.item.source and (row.item.note or card.page):
            yield f"{row.item.what}: {advice(row, card, fetch)}"


def _unreadable(folder: Path, taken: set[Path]) -> Iterator[str]:
    """A line for each of the first other weight files that cannot be used, whatever they are."""
    others = (path for path in _entries(folder) if path.suffix.lower() == ".safetensors")
    for path in islice((path for path in others if path not in taken and path.is_file()), 3):
        try:
            find_parts(path)
        except CheckpointError as exc:
            yield f"There is also a file that cannot be used: {exc}"

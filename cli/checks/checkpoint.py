"""Checks the files of a checkpoint against its card, part by part, without torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from cli.checks.finding import Finding
from cli.output import command_line
from model.card import Card, shipped_folder
from model.errors import CheckpointError
from model.files.checkpoint_check import find_problems
from model.files.layouts import PARTS, CheckpointPart, readable_parts, tokenizer_folders
from model.files.presence import Presence, advice, find_files, has_tokenizer, table, wanted

Parts = Mapping[str, CheckpointPart]


def check_checkpoint(card: Card, given: Path | None) -> tuple[list[Finding], Parts]:
    """A finding for each file of the card and each part that does not fit, and the readable parts.

    Looks in the folder `given`, else in the package.
    """
    folder = given or shipped_folder(card)
    if not folder.is_dir():
        what = f"{card.name} does not ship with the package, and no folder is named"
        if given:
            what = f"there is no folder {given}"
        named = "name its folder with --checkpoint-dir or KIRAZURI_CHECKPOINT_DIR"
        return [Finding("checkpoint", "fault", what, f"{named}\n{_fetch(card, given)}")], {}
    rows = find_files(card, folder)
    findings = [_finding(row, card, folder) for row in rows]
    bad = [row for row in rows if not row.is_usable]
    found, unreadable = readable_parts(card.files, folder)
    told = {row.item.path for row in bad}
    problems = [why for path, why in unreadable.items() if path not in told]
    absent = {name for row in bad for name in row.item.parts}
    parts = {name: part for name, part in found.items() if name not in absent}
    problems += find_problems(parts, card)
    findings += [Finding("weights", "fault", one, _mend(card, given)) for one in problems]
    if not problems and parts.keys() == set(PARTS):
        findings.append(_describe(parts))
    return findings, parts


def check_tokenizers(card: Card, given: Path | None, parts: Parts) -> Iterator[Finding]:
    """Whether the tokenizers that are there load, and the weights embed all their tokens."""
    # Imported here: it takes a while.
    from model.prompting.tokens import load_qwen_tokenizer, load_t5_tokenizer, vocabulary_size

    folders = tokenizer_folders(card.files, given or shipped_folder(card))
    found: list[int] = []
    for load, folder in zip((load_qwen_tokenizer, load_t5_tokenizer), folders, strict=True):
        if not has_tokenizer(folder):
            continue
        try:
            found.append(vocabulary_size(load(folder)))
        except CheckpointError as exc:
            yield Finding("tokenizers", "fault", str(exc), _mend(card, given))
    if len(found) < len(folders):
        return
    sizes = found[0], found[1]
    wrong = [one for one in find_problems(parts, card, sizes) if "tokenizer" in one]
    for problem in wrong:
        yield Finding("tokenizers", "fault", problem, _mend(card, given))
    if not wrong:
        yield Finding("tokenizers", "ok", f"Qwen {sizes[0]:,} and T5 {sizes[1]:,} tokens")


def expected_hashes(card: Card, given: Path | None) -> dict[Path, str | None]:
    """The SHA-256 that the card says of its files."""
    return {item.path: item.sha256 for item in wanted(card, given or shipped_folder(card))}


def _finding(row: Presence, card: Card, folder: Path) -> Finding:
    item = row.item
    if row.is_usable:
        return Finding(item.what, "ok", str(row.place))
    found = f"{row.place}: {row.problem}" if row.problem else f"{item.path} is not there"
    moves = [line.strip() for line in table([row], folder) if " fits: " in line]
    if moves:
        return Finding(item.what, "fault", found, moves[0])
    return Finding(item.what, "fault", found, advice(row, card, _fetch(card, folder)))


def _describe(parts: Parts) -> Finding:
    tensors = [tensor for part in parts.values() for tensor in part.tensors.values()]
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors}))
    size = sum(tensor.size for tensor in tensors)
    return Finding("weights", "ok", f"{len(tensors)} tensors fit, {dtypes}, {size / 1e6:,.0f} MB")


def _fetch(card: Card, folder: Path | None) -> str:
    place = str(folder) if folder else "FOLDER"
    return command_line("checkpoint", "fetch", card.name, "--checkpoint-dir", place)


def _mend(card: Card, folder: Path | None) -> str:
    return f"It is another or a damaged file. Move it away first. Then: {_fetch(card, folder)}"

"""`kirazuri checkpoint`: inspects, downloads and converts checkpoints."""

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from cli.commands.progress_bar import byte_bar
from cli.options import AsJson, CardName, CheckpointFolder
from cli.output import (
    FAILED,
    INTERRUPTED,
    examples,
    fail,
    print_error,
    print_json,
    printable,
    read_settings,
)
from model.card import Card, Source, load_card, shipped_folder
from model.errors import CardError, CheckpointError
from model.files.convert import convert_checkpoint, total_bytes
from model.files.inspection import (
    PART_LABELS,
    InspectionReport,
    inspect_weights,
    weight_bytes,
)
from model.files.layouts import library_folder
from model.files.lora.folder import CheckLora, check_for_checkpoint, check_without_checkpoint
from model.files.presence import Presence, WantedFile, find_files, table
from model.files.safetensors_header import first_keys

_MAKE_ROOM = "        Move it away and run this again: files that exist are not replaced."

app = typer.Typer(
    help="Inspect, download and convert checkpoints.", no_args_is_help=True, add_completion=False
)


@app.command(
    epilog=examples(
        "kirazuri checkpoint inspect kirazuri-anima-v1.safetensors --card kirazuri-v1",
        "kirazuri checkpoint inspect ~/checkpoints/Anima-Base-v1.0-Diffusers --no-hash",
        "kirazuri checkpoint inspect style-lora.safetensors --json",
    )
)
def inspect(
    path: Annotated[Path, typer.Argument(help="A weight file, or a folder of them.")],
    card: CardName = None,
    has_hash: Annotated[
        bool, typer.Option("--hash/--no-hash", help="Read whole files to compute their SHA-256.")
    ] = True,
    is_json: AsJson = False,
) -> None:
    """Show what a file or folder contains and what is missing to run it.

    Lists parts, layout, size, precision and origin, within seconds. The exit code is 1 if the
    checkpoint cannot be used.
    """
    known = _card(card)
    with byte_bar("hashing", weight_bytes(path, known) if has_hash else 0) as advance:
        report = inspect_weights(
            path,
            known,
            has_hash=has_hash,
            vocabulary_sizes=_vocabulary_sizes,
            check_lora=_lora_check(known),
            on_bytes=advance,
        )
    if is_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        for line in (*_lines(report), *_rest(path, known, report)):
            # Names and metadata come from the file and may contain control characters.
            typer.echo(printable(line))
    if report.problems:
        raise typer.Exit(FAILED)


@app.command(
    epilog=examples(
        "kirazuri checkpoint fetch kirazuri-v1 --checkpoint-dir /models/anima",
        "kirazuri checkpoint fetch kirazuri-v1 --checkpoint-dir /models/anima --accept-licence",
    )
)
def fetch(
    card: Annotated[str, typer.Argument(help="Name of a card, or path of its .toml.")],
    checkpoint_dir: CheckpointFolder = None,
    is_accepted: Annotated[
        bool, typer.Option("--accept-licence", help="Do not ask about the licence.")
    ] = False,
    is_json: AsJson = False,
) -> None:
    """Download a card's text encoder, VAE and tokenizers, and verify existing files.

    Shows the licence first. An interrupted download continues. Files that must be downloaded by
    hand are listed with their paths. The exit code is 0 if every file is present. With --json: what
    is there in the end; all else goes to stderr.
    """
    known = _card(card)
    folder = read_settings(checkpoint_dir=checkpoint_dir).checkpoint_dir
    if folder is None and not shipped_folder(known).is_dir():
        fail("name the folder with --checkpoint-dir or KIRAZURI_CHECKPOINT_DIR")
    try:
        with redirect_stdout(sys.stderr if is_json else sys.stdout):
            _fetch_or_verify(known, folder, is_accepted=is_accepted)
    finally:
        if is_json:
            print_json(_state_of(known, folder or shipped_folder(known)))


def _state_of(card: Card, folder: Path) -> list[dict[str, object]]:
    return [
        {"what": row.item.what, "path": str(row.place or row.item.path), "is_there": row.is_usable}
        for row in find_files(card, folder)
    ]


def _fetch_or_verify(known: Card, folder: Path | None, *, is_accepted: bool) -> None:
    if folder is None:
        typer.echo(f"{known.name} ships with the package; there is nothing to fetch.")
        return
    for line in _about(known):
        typer.echo(line)
    root = library_folder(known.files, folder)
    try:
        if root:
            _verify_folder(root, known)
        else:
            _fetch(known, folder, is_accepted=is_accepted)
    except CheckpointError as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        fail("interrupted; run it again to continue", INTERRUPTED)


@app.command(
    epilog=examples(
        "kirazuri checkpoint convert Anima-Base-v1.0-Diffusers /models/anima --card kirazuri-v1",
        "kirazuri checkpoint convert all-in-one.safetensors transformer.safetensors",
    )
)
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint in another layout.")],
    target: Annotated[Path, typer.Argument(help="A folder, or a .safetensors file.")],
    card: CardName = None,
    is_json: AsJson = False,
) -> None:
    """Write a checkpoint in the published layout, with bit-identical weights.

    Float8 weights become bfloat16. A checkpoint that loading refuses is not written.

    A folder gets every part of the source, under the card's file names. A file gets the
    transformer with its text adapter.
    """
    known = _card(card)
    try:
        with byte_bar("writing", total_bytes(source)) as advance:
            written = convert_checkpoint(
                source, target, known, vocabulary_sizes=_vocabulary_sizes, on_bytes=advance
            )
    except CheckpointError as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        fail("interrupted; the incomplete file was removed", INTERRUPTED)
    if is_json:
        print_json([{"path": str(file.path), "content": file.content} for file in written])
        return
    for file in written:
        typer.echo(f"{file.path}  {file.content}")


def _card(name: str | None) -> Card:
    try:
        return load_card(name or read_settings().card)
    except CardError as exc:
        fail(str(exc))


def _lora_check(card: Card) -> CheckLora:
    """The check that requests make, if the card's checkpoint is here to compare LoRAs with."""
    settings = read_settings()
    skips_misfits = settings.lora_skip_misfits
    try:
        return check_for_checkpoint(card, settings.checkpoint_dir, skips_misfits=skips_misfits)
    except CheckpointError:
        return check_without_checkpoint


def _vocabulary_sizes(qwen_folder: Path, t5_folder: Path) -> tuple[int, int]:
    # Imported here: only folders with tokenizers need it.
    from model.prompting.tokens import vocabulary_sizes

    return vocabulary_sizes(qwen_folder, t5_folder)


def _fetch(card: Card, folder: Path, *, is_accepted: bool) -> None:
    rows = find_files(card, folder)
    typer.echo("\n".join([f"Files of {card.name} in {folder}:", *table(rows, folder)]))
    failed = [problem for row in rows if (problem := _content_problem(row, card))]
    absent = [row.item for row in rows if row.place is None]
    by_source = [(item, item.source) for item in absent if item.source]
    if by_source:
        for item, source in by_source:
            typer.echo(f"fetch   {item.what} from {source.repo}/{source.path}")
        _require_consent(is_accepted=is_accepted)
        failed += _download_all(by_source)
    by_hand = [item for item in absent if not item.source]
    for item in by_hand:
        note = " ".join(filter(None, (item.note, card.page)))
        typer.echo(f"missing {item.what}: it cannot be fetched. {note}".rstrip())
        _make_folder(item.path.parent)
        typer.echo(f"        Put it at {item.path} and run this again to have it verified.")
    for problem in failed:
        print_error(problem)
    if failed or by_hand:
        raise typer.Exit(1)
    typer.echo(f"Everything is there. Run it with KIRAZURI_CARD={card.name} and")
    typer.echo(f"KIRAZURI_CHECKPOINT_DIR={folder}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        print_error(f"cannot make the folder {folder}: {exc.strerror}")


def _download_all(items: list[tuple[WantedFile, Source]]) -> list[str]:
    """Download all files that can be downloaded; what failed, and how else to get it."""
    # Imported here: it takes half a second, and no other command needs it.
    from cli.checkpoint_files import download, show_progress

    show_progress(is_shown=sys.stderr.isatty())
    failed = []
    for item, source in items:
        try:
            for path in download(item, source):
                typer.echo(f"fetched {item.what}: {path}")
        except CheckpointError as exc:
            failed.append(f"{exc}\n        Or copy {source.path} of {source.repo} to {item.path}")
    if failed:
        failed.append(
            "run this again to continue; HF_ENDPOINT names a mirror of the hub, `hf auth login` "
            "logs in"
        )
    return failed


def _content_problem(row: Presence, card: Card) -> str | None:
    """What is wrong with a file that is there; prints what a good weight file is."""
    item = row.item
    if row.place is None:
        return None
    if row.problem:
        return f"{row.place}: {row.problem}\n{_MAKE_ROOM}"
    if item.is_folder or row.place != item.path:
        return None
    report = inspect_weights(item.path, card, has_hash=True, vocabulary_sizes=_vocabulary_sizes)
    if report.problems:
        return "\n".join([*report.problems, _MAKE_ROOM])
    hashes = [file.sha256 for file in report.files]
    if item.sha256 and hashes != [item.sha256]:
        return f"{item.path} has sha256 {hashes[0]}; the card says {item.sha256}\n{_MAKE_ROOM}"
    typer.echo(f"there   {item.what}: {item.path} ({report.kind}, sha256 {hashes[0]})")
    return None


def _verify_folder(root: Path, card: Card) -> None:
    """Check that a folder saved by diffusers is complete; nothing is downloaded into it."""
    report = inspect_weights(root, card, has_hash=False, vocabulary_sizes=_vocabulary_sizes)
    if report.problems or report.missing:
        raise CheckpointError("; ".join([*report.problems, *report.missing]))
    typer.echo(f"{root} is a {report.kind} with everything in it; there is nothing to fetch.")


def _about(card: Card) -> Iterator[str]:
    """Where the checkpoint comes from, and its terms of use."""
    licence = card.licence
    if card.page:
        yield f"Page: {card.page}"
    yield f"Licence: {licence.name}{f' ({licence.url})' if licence.url else ''}"
    yield licence.notice
    if not licence.is_commercial_use_allowed:
        yield "It does not allow commercial use of the weights."


def _require_consent(*, is_accepted: bool) -> None:
    if is_accepted:
        return
    if not sys.stdin.isatty():
        fail("no terminal to ask for consent; read the licence and add --accept-licence")
    typer.confirm("Do you accept the licence?", abort=True)


def _lines(report: InspectionReport) -> Iterator[str]:
    """The report as lines of text."""
    yield f"{report.path}: {report.kind}"
    if report.tensors:
        size = sum(file.size for file in report.files)
        yield (
            f"  {report.parameters:,} parameters in {report.tensors} tensors, "
            f"{_dtypes(report.dtypes)}, {size:,} bytes"
        )
    if report.lora:
        rank = f" of rank {report.lora.rank}" if report.lora.rank else ""
        yield f"  {report.lora.method}{rank} for {', '.join(report.lora.parts)}"
    for part in report.parts:
        details = [f"{part.layout} names"]
        details += [f"prefix {part.prefix!r}"] if part.prefix else []
        details += [f"{part.parameters:,} parameters", _dtypes(part.dtypes)]
        details += [f"{part.blocks} blocks"] if part.blocks else []
        details += [f"width {part.width}"] if part.width else []
        yield f"  {PART_LABELS[part.name]}: {', '.join(details)}"
    for file in report.files:
        yield f"  sha256 {file.sha256}  {file.path.name}" if file.sha256 else f"  {file.path.name}"
    for key, value in report.origin.items():
        yield f"  {key}: {value}"
    for kind, keys in report.passed_over.items():
        yield f"passed over: {kind}: {first_keys(keys)}"
    for note in report.notes:
        yield f"note: {note}"
    for problem in report.problems:
        yield f"problem: {problem}"


def _rest(path: Path, card: Card, report: InspectionReport) -> Iterator[str]:
    """What else is needed to run it, and where that comes from."""
    if path.is_dir() and (report.missing or report.problems):
        yield f"{card.name} needs:"
        yield from table(find_files(card, path), path)
    else:
        for missing in report.missing:
            yield f"missing: {missing}"
    if report.missing:
        yield from _about(card)


def _dtypes(counts: dict[str, int]) -> str:
    return (
        " and ".join(counts)
        if len(counts) < 2
        else ", ".join(f"{n} {d}" for d, n in counts.items())
    )

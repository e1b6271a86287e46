"""The checks before a start: those that take less than a second, and all of them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cli.checks.checkpoint import (
    Parts,
    check_checkpoint,
    check_tokenizers,
    expected_hashes,
)
from cli.checks.device import check_cpu, check_device
from cli.checks.finding import Finding, faults, lines_of
from cli.checks.machine import (
    check_disk,
    check_files,
    check_free_port,
    check_memory,
    check_packages,
    check_port,
    check_python,
    check_torch,
    runs_on_cpu,
)
from cli.checks.redis import check_queue, check_server
from cli.output import command_line, fail, note
from model.card import Card, load_card
from model.errors import CardError
from model.files.inspection import file_sha256
from model.files.presence import why_incomplete
from worker.settings import Settings

_RELEASED = 1_767_225_600  # 2026-01-01
OnBytes = Callable[[int], object]


def require_start(settings: Settings, *, host: str, port: int, workers: int) -> None:
    """End the command with what to do if the service could not start; warn if it may not."""
    found = check_before_start(settings, host=host, port=port, workers=workers, report=note)
    for line in lines_of(finding for finding in found if finding.state != "ok"):
        note(line)
    if wrong := faults(found):
        count = "a fault" if len(wrong) == 1 else f"{len(wrong)} faults"
        fail(f"not started because of {count}; `kirazuri doctor` checks everything")


def check_before_start(
    settings: Settings, *, host: str, port: int, workers: int, report: Callable[[str], None]
) -> list[Finding]:
    """What takes less than a second, but for a Redis that does not answer.

    With a fault also what takes longer, so that all are told at once: the tokenizers, which are
    else told by the worker. `report` gets lines about a Redis that is still loading.
    """
    findings, card, parts = _checkpoint(settings)
    found = [finding for finding in findings if finding.check in ("card", "weights")]
    if card and (table := why_incomplete(card, settings.checkpoint_dir, fetch=_fetch(settings))):
        found.insert(0, Finding("checkpoint", "fault", table))
    found.append(check_torch(settings))
    if runs_on_cpu(settings):
        found.append(check_cpu("the CPU", parts, settings.model_copy(update={"workers": workers})))
    found += [check_memory(parts, settings, workers), check_disk(settings)]
    found += [check_server(settings, report), check_free_port(host, port), *check_files(settings)]
    if faults(found) and card:
        found += check_tokenizers(card, settings.checkpoint_dir, parts)
    return found


def _fetch(settings: Settings) -> str:
    place = settings.checkpoint_dir or "FOLDER"
    return command_line("checkpoint", "fetch", settings.card, "--checkpoint-dir", place)


def check_everything(
    settings: Settings, *, host: str, port: int, on_bytes: OnBytes | None
) -> Iterator[Finding]:
    """All checks. Hashes the checkpoint's files if `on_bytes` is given, which gets their bytes."""
    yield check_python()
    yield check_packages()
    torch = check_torch(settings)
    yield torch
    findings, card, parts = _checkpoint(settings)
    if torch.state != "fault":
        yield from check_device(parts, settings)
    yield check_memory(parts, settings)
    yield check_disk(settings)
    yield from check_queue(settings)
    yield check_port(host, port)
    yield _check_date()
    yield from findings
    if card is not None:
        yield from check_tokenizers(card, settings.checkpoint_dir, parts)
        if on_bytes is not None:
            yield from _check_hashes(card, parts, settings.checkpoint_dir, on_bytes)
    yield from check_files(settings)


def checkpoint_bytes(settings: Settings) -> int:
    """Bytes of the files that are hashed."""
    _, _, parts = _checkpoint(settings)
    return sum(path.stat().st_size for path in _files(parts))


def _checkpoint(settings: Settings) -> tuple[list[Finding], Card | None, Parts]:
    try:
        card = load_card(settings.card)
    except CardError as exc:
        return [Finding("card", "fault", str(exc), "correct --card or KIRAZURI_CARD")], None, {}
    findings, parts = check_checkpoint(card, settings.checkpoint_dir)
    return findings, card, parts


def _files(parts: Parts) -> list[Path]:
    """The files of the parts, each once."""
    tensors = (tensor for part in parts.values() for tensor in part.tensors.values())
    return list(dict.fromkeys(tensor.path for tensor in tensors))


def _check_hashes(
    card: Card, parts: Parts, folder: Path | None, on_bytes: OnBytes
) -> Iterator[Finding]:
    expected = expected_hashes(card, folder)
    for file in _files(parts):
        digest = file_sha256(file, on_bytes)
        known = expected.get(file)
        if known is None:
            yield Finding("SHA-256", "ok", f"{digest}  {file.name} (the card has none)")
        elif known == digest:
            yield Finding("SHA-256", "ok", f"{digest}  {file.name}, as the card says")
        else:
            yield Finding(
                "SHA-256",
                "fault",
                f"{digest}  {file.name}, but the card says {known}",
                f"it is another or a damaged file; move {file} away and fetch it again",
            )


def _check_date() -> Finding:
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if time.time() < _RELEASED:
        advice = "set the clock; certificates and signed links fail with a wrong one"
        return Finding("clock", "fault", f"{now} is before this release", advice)
    return Finding("clock", "ok", now)

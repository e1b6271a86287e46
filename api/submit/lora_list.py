"""Lists and hashes the LoRAs that requests may name, without blocking the event loop."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from fastapi.exceptions import RequestValidationError

from api.http.service_schemas import LoraDescription, RefusedLora
from model.card import Card
from model.errors import CheckpointError, LoraError
from model.files.lora.folder import (
    CheckLora,
    LoraFile,
    LoraFolder,
    check_for_checkpoint,
    file_warnings,
)
from model.files.lora.plan import plan_changes
from model.request import GenerationRequest, RequestWarning
from model.resolved_request import ResolvedRequest
from worker.settings import Settings
from worker.telemetry.background import stop_task

log = logging.getLogger(__name__)

_HASH_WAIT_SECONDS = 2.0
"""How long a list waits for hashes; large new files are listed without theirs at first."""


def lora_check(settings: Settings, card: Card) -> CheckLora:
    """The check that a worker makes. Without the checkpoint's files it covers less."""
    skips_misfits = settings.lora_skip_misfits
    if settings.lora_dir is not None:
        try:
            return check_for_checkpoint(card, settings.checkpoint_dir, skips_misfits=skips_misfits)
        except CheckpointError as exc:
            log.warning("cannot check whether LoRAs fit the checkpoint: %s", exc)
    return partial(plan_changes, table=None, skips_misfits=skips_misfits)


class LoraList:
    """The LoRA folder for use by routes; an instance belongs to one event loop."""

    def __init__(self, folder: LoraFolder) -> None:
        self._folder = folder
        self._hashing: asyncio.Task[None] | None = None

    @property
    def names(self) -> Collection[str]:
        """The names that requests may use, as of the last refresh."""
        return self._folder.files.keys()

    @property
    def aliases(self) -> Mapping[str, str]:
        """The names that trainings gave the files, by their names."""
        return {name: file.alias for name, file in self._folder.files.items() if file.alias}

    async def refresh(self) -> None:
        """Scan the folder again."""
        await asyncio.to_thread(self._folder.refresh)

    async def hashes(self, request: GenerationRequest) -> dict[str, str]:
        """The SHA-256 of each LoRA of a request, by name.

        Raises:
            RequestValidationError: a file was removed after its name was validated.
        """
        found = {}
        for index, name in enumerate(lora.name for lora in request.loras):
            try:
                found[name] = await asyncio.to_thread(self._folder.sha256, name)
            except LoraError as exc:
                place = ("body", "loras", index, "name")
                wrong = {"type": "lora_unknown", "loc": place, "msg": str(exc), "input": name}
                raise RequestValidationError([wrong]) from exc
        return found

    def warnings(self, request: ResolvedRequest, card: Card) -> Iterable[RequestWarning]:
        """Warn of LoRAs made for another checkpoint, and of those that are used in part."""
        for lora in request.loras:
            file = self._folder.files.get(lora.name)
            yield from file_warnings(file, card) if file else ()

    def trigger_words(self, names: Iterable[str]) -> dict[str, Sequence[str]]:
        """The trigger words of these LoRAs by name; names without a file are left out."""
        files = self._folder.files
        return {name: files[name].trigger_words for name in names if name in files}

    async def descriptions(
        self, card: Card, allowed: Collection[str] | None
    ) -> list[LoraDescription]:
        """Scan the folder and describe its LoRAs: the `allowed` names, or all for None."""
        await self.refresh()
        if self._hashing is None or self._hashing.done():
            self._hashing = asyncio.create_task(self._hash_all(list(self._folder.files)))
        await asyncio.wait([self._hashing], timeout=_HASH_WAIT_SECONDS)
        return [
            self._described(file, card)
            for name, file in self._folder.files.items()
            if allowed is None or name in allowed
        ]

    def refused(self, allowed: Collection[str] | None) -> list[RefusedLora]:
        """The refused files as of the last refresh: the `allowed` names, or all for None."""
        return [
            RefusedLora(name=name, reason=reason)
            for name, reason in self._folder.refused.items()
            if allowed is None or name in allowed
        ]

    async def close(self) -> None:
        """Stop hashing after the current file."""
        if self._hashing is not None:
            await stop_task(self._hashing)

    async def _hash_all(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                await asyncio.to_thread(self._folder.sha256, name)
            except (LoraError, OSError) as exc:  # removed or being written: listed with null
                log.info("cannot hash the LoRA %s yet: %s", name, exc)

    def _described(self, file: LoraFile, card: Card) -> LoraDescription:
        warnings = [warning.detail for warning in file_warnings(file, card)]
        return LoraDescription(
            name=file.name,
            alias=file.alias,
            sha256=self._folder.known_sha256(file.name),
            bytes=file.size,
            method=file.method,
            rank=file.rank,
            parts=list(file.parts),
            base=file.base,
            architecture=file.architecture,
            trigger_words=list(file.trigger_words),
            warning=" ".join(warnings) or None,
        )

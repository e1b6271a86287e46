"""The LoRAs that requests may name, without keeping the event loop waiting for the disk."""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Sequence

from fastapi.exceptions import RequestValidationError

from api.http.schemas import LoraDescription
from model.card import Card
from model.errors import LoraError
from model.files.lora_folder import LoraFile, LoraFolder, base_warning
from model.request import GenerationRequest, RequestWarning
from model.resolved_request import ResolvedRequest

_PATIENCE_SECONDS = 2.0
"""How long the list waits for hashes; large files that are new come without theirs until later."""


class LoraList:
    """A folder of LoRAs as the routes need it. Belongs to one event loop."""

    def __init__(self, folder: LoraFolder) -> None:
        self._folder = folder
        self._hashing: asyncio.Task[None] | None = None

    @property
    def names(self) -> Collection[str]:
        """The names that requests may use, as of the last look at the folder."""
        return self._folder.files.keys()

    async def refresh(self) -> None:
        """Look at the folder again."""
        await asyncio.to_thread(self._folder.refresh)

    async def hashes(self, request: GenerationRequest) -> dict[str, str]:
        """The SHA-256 of each LoRA that a request names.

        Raises:
            RequestValidationError: a file has gone since its name was checked.
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
        """What there is to say against the LoRAs of a request."""
        for lora in request.loras:
            file = self._folder.files.get(lora.name)
            warning = base_warning(file, card) if file else None
            if warning:
                yield warning

    def trigger_words(self, names: Iterable[str]) -> dict[str, Sequence[str]]:
        """What the files of these names say to begin them with, as far as there are such files."""
        files = self._folder.files
        return {name: files[name].trigger_words for name in names if name in files}

    async def descriptions(
        self, card: Card, allowed: Collection[str] | None
    ) -> list[LoraDescription]:
        """The LoRAs that there are now, by name; of these the `allowed` ones, or all for None."""
        await self.refresh()
        if self._hashing is None or self._hashing.done():
            self._hashing = asyncio.create_task(self._hash_all(list(self._folder.files)))
        await asyncio.wait([self._hashing], timeout=_PATIENCE_SECONDS)
        return [
            self._described(file, card)
            for name, file in self._folder.files.items()
            if allowed is None or name in allowed
        ]

    async def close(self) -> None:
        """Stop hashing after the file that is being read."""
        if self._hashing is not None:
            self._hashing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._hashing

    async def _hash_all(self, names: Sequence[str]) -> None:
        for name in names:
            with contextlib.suppress(LoraError):  # gone, or being written to: the list says null
                await asyncio.to_thread(self._folder.sha256, name)

    def _described(self, file: LoraFile, card: Card) -> LoraDescription:
        warning = base_warning(file, card)
        return LoraDescription(
            name=file.name,
            sha256=self._folder.known_sha256(file.name),
            bytes=file.size,
            method=file.method,
            rank=file.rank,
            parts=list(file.parts),
            base=file.base,
            architecture=file.architecture,
            trigger_words=list(file.trigger_words),
            warning=warning.detail if warning else None,
        )

"""Where pictures lie: bytes under a content-derived name, complete or not at all.

Knows neither jobs nor Redis; how long a picture is kept is decided elsewhere.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from worker.errors import ImageExpired, ImageNotFound, StoreError

MEDIA_TYPES = {
    "png": "image/png",
    "webp": "image/webp",
    "jpg": "image/jpeg",
    "avif": "image/avif",
}
"""By extension: all kinds of files that a store keeps."""

IMMUTABLE = "private, max-age=31536000, immutable"
"""`Cache-Control` of a picture: the bytes under a name never change."""

_NAME = re.compile(rf"[0-9a-f]{{40}}\.(?:{'|'.join(MEDIA_TYPES)})\Z")
_PROBE = bytes(1 << 20)
"""What a check writes: about a picture's worth, so that a full disk is noticed."""


class ImageStore(Protocol):
    """Bytes in, name out. Names are safe to show and to put into a URL.

    Every method but `put` takes any text for a name and never looks up one of another shape.
    All of them raise StoreError where the store cannot be reached, read or written just now.
    """

    def put(self, data: bytes, extension: str) -> str:
        """Keep `data` durably and return its name; the same bytes get the same name.

        Repeating it is harmless, and makes the picture young again.
        """

    def read(self, name: str) -> bytes:
        """The bytes of a picture. ImageNotFound, or ImageExpired where it was there once."""

    async def locate(self, name: str, *, is_head: bool = False) -> Path | str:
        """Where a client gets a picture: a file of this machine, or a URL that needs no key.

        The URL answers GET, or HEAD if `is_head`, for a while. Raises as `read` does.
        """

    def delete(self, name: str) -> None:
        """Let go of a picture; its name answers ImageExpired from now on."""

    def probe(self) -> None:
        """Write something of a picture's size and let go of it; StoreError where that fails."""

    def check(self) -> None:
        """StoreError unless the last probe, of a few seconds ago or of now, went well."""

    def age(self, name: str) -> float | None:
        """Seconds since a picture was last put; None where there is none."""

    def pictures(self) -> Iterator[tuple[str, float]]:
        """Name and age of all pictures, in no order; listed in pages where there are many."""

    def clean(self, *, marks_older_than: float) -> None:
        """Remove marks of deleted pictures and leftovers of broken writes after so many seconds."""


def content_name(data: bytes, extension: str) -> str:
    """160 bits of SHA-256: nobody guesses it, and equal pictures share it."""
    if extension not in MEDIA_TYPES:
        raise StoreError(f"extension {extension!r} is none of {', '.join(MEDIA_TYPES)}")
    if not data:
        raise StoreError("a picture of 0 bytes is refused")
    return f"{hashlib.sha256(data).hexdigest()[:40]}.{extension}"


def is_name(name: str) -> bool:
    """Whether a store may have given this name."""
    return _NAME.match(name) is not None


def not_found(name: str) -> ImageNotFound:
    """There never was a picture of this name, or its mark is gone too."""
    if is_name(name):
        return ImageNotFound(f"there is no image {name}")
    return ImageNotFound("there is no such image: names are 40 hex digits and an extension")


def expired(name: str) -> ImageExpired:
    """There was a picture of this name."""
    return ImageExpired(f"image {name} was removed when its job expired")


class LocalImageStore:
    """Pictures as files in one folder, shared by API and workers.

    A file is written under a temporary name, forced to disk and only then renamed, so that a
    name never shows half a picture. A deleted picture leaves an empty file as its mark.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes, extension: str) -> str:
        """Keep `data` and return its name."""
        name = content_name(data, extension)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._write(name, data)
        except OSError as exc:
            raise StoreError(f"cannot write {name} in {self._root}: {exc}") from exc
        return name

    def _write(self, name: str, data: bytes) -> None:
        """Also where the name exists: a fresh file tells the sweep that it is wanted again."""
        handle, temporary = tempfile.mkstemp(dir=self._root, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(self._root / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def path(self, name: str) -> Path:
        """The file of a picture; the name is checked, whatever a client sent."""
        if not is_name(name):
            raise not_found(name)
        file = self._root / name
        try:
            size = file.stat().st_size
        except FileNotFoundError as exc:
            raise not_found(name) from exc
        except OSError as exc:
            raise StoreError(f"cannot read {name} in {self._root}: {exc}") from exc
        if size == 0:
            raise expired(name)
        return file

    def read(self, name: str) -> bytes:
        """The bytes of a picture; raises as `path` does."""
        file = self.path(name)
        try:
            data = file.read_bytes()
        except OSError as exc:
            raise StoreError(f"cannot read {name} in {self._root}: {exc}") from exc
        if not data:  # it was deleted since we looked
            raise expired(name)
        return data

    async def locate(self, name: str, *, is_head: bool = False) -> Path:
        """The file of a picture, looked for in a thread."""
        return await asyncio.to_thread(self.path, name)

    def delete(self, name: str) -> None:
        """Replace a picture by its empty mark; unknown names are ignored."""
        if not is_name(name) or not (self._root / name).exists():
            return
        try:
            handle, temporary = tempfile.mkstemp(dir=self._root, prefix=".new-")
            os.close(handle)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(self._root / name)
        except OSError as exc:
            raise StoreError(f"cannot remove {name} in {self._root}: {exc}") from exc

    def probe(self) -> None:
        """StoreError unless a file of a picture's size can be written in the folder."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._root, prefix=".new-") as file:
                file.write(_PROBE)
                file.flush()
        except OSError as exc:
            raise StoreError(f"cannot write in {self._root}: {exc}") from exc

    def check(self) -> None:
        """The same: it costs next to nothing."""
        self.probe()

    def age(self, name: str) -> float | None:
        """Seconds since a picture was last put; None where there is none."""
        with contextlib.suppress(OSError, ValueError):
            state = (self._root / name).stat()
            if is_name(name) and state.st_size:
                return time.time() - state.st_mtime
        return None

    def pictures(self) -> Iterator[tuple[str, float]]:
        """Name and age of all pictures."""
        if not self._root.is_dir():
            return
        for entry in os.scandir(self._root):
            with contextlib.suppress(FileNotFoundError):
                if is_name(entry.name) and (state := entry.stat()).st_size:
                    yield entry.name, time.time() - state.st_mtime

    def clean(self, *, marks_older_than: float) -> None:
        """Remove marks of deleted pictures and leftovers of broken writes after so many seconds."""
        if not self._root.is_dir():
            return
        limit = time.time() - marks_older_than
        for entry in os.scandir(self._root):
            with contextlib.suppress(FileNotFoundError):
                state = entry.stat()
                is_left_over = entry.name.startswith(".new-") or state.st_size == 0
                if is_left_over and state.st_mtime < limit:
                    Path(entry.path).unlink()

"""Where finished pictures lie: bytes under a content-derived name, complete or not at all.

Knows neither jobs nor Redis; how long a picture is kept is decided elsewhere.
"""

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

EXTENSIONS = ("png", "webp", "jpg", "avif")

_NAME = re.compile(rf"[0-9a-f]{{40}}\.(?:{'|'.join(EXTENSIONS)})\Z")


class ImageStore(Protocol):
    """Bytes in, name out. Names are safe to show and to put into a URL."""

    def put(self, data: bytes, extension: str) -> str:
        """Keep `data` durably and return its name; the same bytes get the same name.

        Raises:
            StoreError: it cannot be written just now.
        """

    def path(self, name: str) -> Path:
        """The file of a picture. ImageNotFound, or ImageExpired where it was there once."""

    def delete(self, name: str) -> None:
        """Let go of a picture; its name answers ImageExpired from now on."""

    def check(self) -> None:
        """StoreError unless pictures can be written."""


def content_name(data: bytes, extension: str) -> str:
    """160 bits of SHA-256: nobody guesses it, and equal pictures share it."""
    if extension not in EXTENSIONS:
        raise StoreError(f"extension {extension!r} is none of {', '.join(EXTENSIONS)}")
    return f"{hashlib.sha256(data).hexdigest()[:40]}.{extension}"


class LocalImageStore:
    """Pictures as files in one folder, shared by API and workers.

    A file is written under a temporary name, forced to disk and only then renamed, so that a
    name never shows half a picture. A deleted picture leaves an empty file as its mark.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes, extension: str) -> str:
        """Keep `data` and return its name."""
        if not data:
            raise StoreError("a picture of 0 bytes is refused")
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
        if not _NAME.match(name):
            raise ImageNotFound("there is no such image: names are 40 hex digits and an extension")
        file = self._root / name
        try:
            size = file.stat().st_size
        except FileNotFoundError as exc:
            raise ImageNotFound(f"there is no image {name}") from exc
        except OSError as exc:
            raise StoreError(f"cannot read {name} in {self._root}: {exc}") from exc
        if size == 0:
            raise ImageExpired(f"image {name} was removed when its job expired")
        return file

    def delete(self, name: str) -> None:
        """Replace a picture by its empty mark; unknown names are ignored."""
        if not _NAME.match(name) or not (self._root / name).exists():
            return
        try:
            handle, temporary = tempfile.mkstemp(dir=self._root, prefix=".new-")
            os.close(handle)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(self._root / name)
        except OSError as exc:
            raise StoreError(f"cannot remove {name} in {self._root}: {exc}") from exc

    def check(self) -> None:
        """StoreError unless a file can be made in the folder."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._root, prefix=".new-"):
                pass
        except OSError as exc:
            raise StoreError(f"cannot write in {self._root}: {exc}") from exc

    def age(self, name: str) -> float | None:
        """Seconds since a picture was last put; None where there is none."""
        with contextlib.suppress(OSError):
            state = (self._root / name).stat()
            if _NAME.match(name) and state.st_size:
                return time.time() - state.st_mtime
        return None

    def names(self) -> Iterator[str]:
        """All pictures, in no order; for the sweep of those that no job knows."""
        if self._root.is_dir():
            for entry in os.scandir(self._root):
                if _NAME.match(entry.name) and entry.stat().st_size:
                    yield entry.name

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

"""Defines the image store, and stores images in a local folder.

The name of an image is derived from its bytes. An image is stored whole or not at all.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from worker.errors import ImageExpired, ImageLost, ImageNotFound, StoreError
from worker.store.threads import read_in_thread

logger = logging.getLogger(__name__)

MEDIA_TYPES = {
    "png": "image/png",
    "webp": "image/webp",
    "jpg": "image/jpeg",
    "avif": "image/avif",
}
"""By extension; a store keeps no other files."""

IMMUTABLE = "private, max-age=31536000, immutable"
"""`Cache-Control` of an image: the bytes under a name never change."""

_HASH_CHARS = 40
_NAME = re.compile(rf"[0-9a-f]{{{_HASH_CHARS}}}\.(?:{'|'.join(MEDIA_TYPES)})\Z")
_PROBE = bytes(1 << 20)
"""A probe writes as much as an image, to notice a full disk."""

_RESERVE_BYTES = 256 << 20
_RESERVE_SHARE = 20
"""Of a disk below 5 GB, a twentieth is kept free."""

_RESERVE_INODES = 100


class ImageStore(Protocol):
    """Keeps images by name. Names are safe to show and to put into a URL.

    Every method but `put` accepts any text as a name, and looks up only well-formed names. Every
    method raises StoreError if the store cannot be reached, read or written.
    """

    def put(self, data: bytes, extension: str) -> str:
        """Store `data` durably and return its name; the same bytes get the same name.

        Storing an image again is harmless and resets its age.
        """

    def read(self, name: str) -> bytes:
        """The bytes of an image.

        Raises:
            ImageNotFound: there is no image of this name.
            ImageExpired: the image was deleted.
            ImageLost: the bytes are not those that were stored.
        """

    async def locate(self, name: str, *, is_head: bool = False) -> Path | str:
        """The place of an image: a local file, or a signed URL that clients can fetch.

        The URL answers GET, or HEAD if `is_head`, for a limited time. Raises as `read` does.
        """

    def delete(self, name: str) -> None:
        """Delete an image and leave a mark: `read` raises ImageExpired from now on."""

    def probe(self) -> None:
        """Write data of an image's size and delete it; raises StoreError if that fails."""

    def check(self) -> None:
        """Raise StoreError if a probe fails; a recent probe may stand for a new one."""

    def age(self, name: str) -> float | None:
        """Seconds since an image was last stored; None if there is none."""

    def list_images(self) -> Iterator[tuple[str, float]]:
        """Name and age of all images, in no order."""

    def clean(self, *, marks_older_than: float) -> None:
        """Remove old marks of deleted images, and leftovers of interrupted writes."""


def image_name(data: bytes, extension: str) -> str:
    """The name of an image, from 160 bits of its SHA-256: unguessable, shared by equal images.

    Raises:
        StoreError: the extension is unknown, or there are no bytes.
    """
    if extension not in MEDIA_TYPES:
        raise StoreError(f"extension {extension!r} is none of {', '.join(MEDIA_TYPES)}")
    if not data:
        raise StoreError("an image of 0 bytes is refused")
    return f"{hashlib.sha256(data).hexdigest()[:_HASH_CHARS]}.{extension}"


def is_image_name(name: str) -> bool:
    """Whether a name is well formed."""
    return _NAME.match(name) is not None


def image_not_found(name: str) -> ImageNotFound:
    """The error for a name without an image and without a mark."""
    if is_image_name(name):
        return ImageNotFound(f"there is no image {name}")
    return ImageNotFound("there is no such image: names are 40 hex digits and an extension")


def image_expired(name: str) -> ImageExpired:
    """The error for a deleted image."""
    return ImageExpired(f"image {name} was removed: its job expired, or its owner deleted it")


def check_intact(name: str, data: bytes) -> None:
    """Raise ImageLost unless these bytes are the image of this name."""
    if hashlib.sha256(data).hexdigest()[:_HASH_CHARS] != name[:_HASH_CHARS]:
        raise image_damaged(name)


def image_damaged(name: str) -> ImageLost:
    """The error for a file that is not what was stored under its name; an operator must know."""
    logger.error("image=%s event=damaged: its bytes do not belong to its name", name)
    return ImageLost(f"image {name} is damaged in the store")


@lru_cache(maxsize=100_000)
def _is_intact(file: Path, _state: tuple[int, ...]) -> bool:
    """Whether a file in this state (its size, its times) belongs to its name; reads it once."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return file.name.startswith(digest[:_HASH_CHARS])


def check_space(folder: Path, size: int) -> None:
    """Keep space for the queue, which may be on the same disk: it ends without any.

    The queue's file stays far below this, also while Redis rewrites it.

    Raises:
        OSError: after writing `size` bytes there, too little would be free.
    """
    disk = os.statvfs(folder)
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    reserve = min(_RESERVE_BYTES, total // _RESERVE_SHARE)
    if free - size < reserve:
        raise OSError(errno.ENOSPC, f"No space left but {reserve >> 10} kB kept for the queue")
    if disk.f_files > 0 and disk.f_favail < _RESERVE_INODES:
        raise OSError(errno.ENOSPC, f"No inodes left but {_RESERVE_INODES} kept for the queue")


class LocalImageStore:
    """Images as files in a folder that API and workers share.

    A file is written under a temporary name, synced to disk and then renamed, so a name
    never belongs to half an image. The mark of a deleted image is an empty file. Only the user of
    the processes can read folder and files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes, extension: str) -> str:
        """Store `data` and return its name."""
        name = image_name(data, extension)
        try:
            self._make_folder()
            check_space(self._root, len(data))
            self._write(name, data)
        except OSError as exc:
            raise StoreError(f"cannot write {name} in {self._root}: {exc}") from exc
        return name

    def _make_folder(self) -> None:
        """Make the folder, for nobody but this user; the mode of an existing one is kept."""
        self._root.parent.mkdir(parents=True, exist_ok=True)
        self._root.mkdir(mode=0o700, exist_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        """Write even if the file exists: its new age keeps it from being swept."""
        handle, temporary = tempfile.mkstemp(dir=self._root, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
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
        """The file of an image; raises as `read` does."""
        if not is_image_name(name):
            raise image_not_found(name)
        file = self._root / name
        try:
            found = file.stat()
            is_intact = found.st_size and _is_intact(
                file, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            )
        except FileNotFoundError as exc:
            raise image_not_found(name) from exc
        except OSError as exc:
            raise StoreError(f"cannot read {name} in {self._root}: {exc}") from exc
        if found.st_size == 0:
            raise image_expired(name)
        if not is_intact:
            raise image_damaged(name)
        return file

    def read(self, name: str) -> bytes:
        """The bytes of an image."""
        file = self.path(name)
        try:
            data = file.read_bytes()
        except OSError as exc:
            raise StoreError(f"cannot read {name} in {self._root}: {exc}") from exc
        if not data:  # it was deleted since `path` looked
            raise image_expired(name)
        check_intact(name, data)
        return data

    async def locate(self, name: str, *, is_head: bool = False) -> Path:
        """The file of an image, looked up in a thread."""
        return await read_in_thread(self.path, name)

    def delete(self, name: str) -> None:
        """Replace an image by its mark; unknown names are ignored."""
        if not is_image_name(name) or not (self._root / name).exists():
            return
        try:
            handle, temporary = tempfile.mkstemp(dir=self._root, prefix=".new-")
            os.close(handle)
            Path(temporary).replace(self._root / name)
        except OSError as exc:
            raise StoreError(f"cannot remove {name} in {self._root}: {exc}") from exc

    def probe(self) -> None:
        """Raise StoreError unless a file of an image's size can be written in the folder."""
        try:
            self._make_folder()
            check_space(self._root, len(_PROBE))
            with tempfile.TemporaryFile(dir=self._root, prefix=".new-") as file:
                file.write(_PROBE)
                file.flush()
        except OSError as exc:
            raise StoreError(f"cannot write in {self._root}: {exc}") from exc

    def check(self) -> None:
        """Probe: in a folder it costs almost nothing."""
        self.probe()

    def age(self, name: str) -> float | None:
        """Seconds since an image was last stored; None if there is none."""
        with contextlib.suppress(OSError, ValueError):
            state = (self._root / name).stat()
            if is_image_name(name) and state.st_size:
                return time.time() - state.st_mtime
        return None

    def list_images(self) -> Iterator[tuple[str, float]]:
        """Name and age of all images."""
        if not self._root.is_dir():
            return
        for entry in os.scandir(self._root):
            with contextlib.suppress(FileNotFoundError):
                if is_image_name(entry.name) and (state := entry.stat()).st_size:
                    yield entry.name, time.time() - state.st_mtime

    def clean(self, *, marks_older_than: float) -> None:
        """Remove old marks of deleted images, and leftovers of interrupted writes."""
        if not self._root.is_dir():
            return
        limit = time.time() - marks_older_than
        for entry in os.scandir(self._root):
            with contextlib.suppress(FileNotFoundError):
                state = entry.stat()
                is_left_over = entry.name.startswith(".new-") or state.st_size == 0
                if is_left_over and state.st_mtime < limit:
                    Path(entry.path).unlink()

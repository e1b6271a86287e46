"""Shortcuts for tests of image stores."""

import asyncio
import time
from pathlib import Path

from worker.store.image_store import ImageStore, LocalImageStore

DATA = b"an image"
UNKNOWN = "a" * 40 + ".png"
"""A well-formed name without an image."""


def locate(store: ImageStore, name: str, *, is_head: bool = False) -> Path | str:
    return asyncio.run(store.locate(name, is_head=is_head))


def locate_url(store: ImageStore, name: str, *, is_head: bool = False) -> str:
    url = locate(store, name, is_head=is_head)
    assert isinstance(url, str)
    return url


def image_names(store: ImageStore) -> list[str]:
    return sorted(name for name, _ in store.list_images())


class HangingStore(LocalImageStore):
    """A store whose writes hang, like those of a network disk without its server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def put(self, data: bytes, extension: str) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "waiting").touch()
        time.sleep(3600)
        raise AssertionError

    @staticmethod
    def is_waiting(folder: Path) -> bool:
        """Whether a write hangs in this folder, also in another process."""
        return (folder / "waiting").exists()

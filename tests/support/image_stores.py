"""Shortcuts for tests of image stores."""

import asyncio
from pathlib import Path

from worker.store.image_store import ImageStore

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

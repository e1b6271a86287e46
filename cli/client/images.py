"""Saves the images of a finished job to files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from cli.client.connection import send
from cli.client.errors import ClientError

_SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg", "avif": ".avif"}
_FORMATS = {suffix: name for name, suffix in _SUFFIXES.items()} | {".jpeg": "jpeg"}


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image file, with its seed and its URL at the service."""

    path: Path
    seed: int
    url: str

    def __str__(self) -> str:
        return f"{self.path}  seed {self.seed}  {self.url}"


def format_of(out: Path | None) -> str | None:
    """The image format that the suffix of `out` asks for; None for a folder or no suffix.

    Raises:
        ClientError: the service does not make images of this format.
    """
    if out is None or out.is_dir() or not out.suffix:
        return None
    if out.suffix.lower() not in _FORMATS:
        raise ClientError(f"--out {out}: the file name must end in one of {', '.join(_FORMATS)}")
    return _FORMATS[out.suffix.lower()]


def save_images(
    client: httpx2.Client, images: Sequence[Mapping[str, Any]], out: Path | None
) -> list[SavedImage]:
    """Download `images`, as a job lists them, to the file or folder `out`.

    Raises:
        ClientError: an image cannot be downloaded, or a file cannot be written.
    """
    saved = []
    for index, image in enumerate(images):
        path = _path(out, image, index if len(images) > 1 else None)
        # If the images are in a bucket, the service redirects to a signed URL.
        content = send(client, "GET", image["url"], timeout=60, follow_redirects=True).content
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as exc:
            raise ClientError(f"cannot write {path}: {exc.strerror}") from exc
        saved.append(SavedImage(path, image["seed"], image["url"]))
    return saved


def _path(out: Path | None, image: Mapping[str, Any], index: int | None) -> Path:
    """`out` itself, numbered if there are several images; in a folder, a name with the seed."""
    suffix = _SUFFIXES[image["format"]]
    if out is None or out.is_dir() or not out.suffix:
        return (out or Path()) / f"kirazuri-{image['seed']}{suffix}"
    return out if index is None else out.with_stem(f"{out.stem}-{index}")

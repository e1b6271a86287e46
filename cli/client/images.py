"""Saves the images of a finished job: as files, and together on one contact sheet."""

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2

from cli.client.connection import send
from cli.client.errors import ClientError, WrongUsage

_SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg", "avif": ".avif"}
_FORMATS = {suffix: name for name, suffix in _SUFFIXES.items()} | {".jpeg": "jpeg"}
_GAP = 8
"""Pixels between the images of a contact sheet."""

_BACKGROUND = (24, 24, 27)
_MOST_NUMBERS = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Where images go: `out` is a file or folder, `sheet` the file of a contact sheet.

    In a folder, names begin with `stem`.
    """

    out: Path | None = None
    sheet: Path | None = None
    may_overwrite: bool = True
    stem: str = "kirazuri"

    def require_free(self, count: int) -> None:
        """Refuse names that cannot be written as asked, before anything is made.

        Raises:
            WrongUsage: a file exists already, a folder is none or cannot be written, or the ending
                of a name is of no image format.
        """
        format_of(self.out)
        # A service refuses more images than anybody has files of.
        count = min(count, _MOST_NUMBERS)
        paths = [] if _is_folder(self.out) else _numbered(self.out or Path(), count)
        if self.sheet is not None:
            if self.sheet.suffix.lower() not in _FORMATS:
                raise WrongUsage(f"--sheet {self.sheet}: {_ENDINGS}")
            paths = [*paths, self.sheet]
        for path in paths:
            if _exists(path) and not self.may_overwrite:
                raise WrongUsage(f"{path} exists; --force overwrites it")
        own = [self.out or Path()] if _is_folder(self.out) else []
        for folder in dict.fromkeys([*own, *(path.parent for path in paths)]):
            _require_writable(folder)


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image file, with its seed and its URL at the service."""

    path: Path
    seed: int
    url: str

    def __str__(self) -> str:
        return f"{self.path}  seed {self.seed}  {self.url}"

    def as_json(self) -> dict[str, Any]:
        """The image as `--json` prints it."""
        return {"path": str(self.path), "seed": self.seed, "url": self.url}


_ENDINGS = f"the file name must end in one of {', '.join(_FORMATS)}"


def format_of(out: Path | None) -> str | None:
    """The image format that the suffix of `out` asks for; None for a folder or no suffix.

    Raises:
        WrongUsage: the service does not make images of this format.
    """
    if out == Path("-"):
        raise WrongUsage("--out -: images do not go to stdout; name a file or a folder")
    if out is None or _is_folder(out):
        return None
    if out.suffix.lower() not in _FORMATS:
        raise WrongUsage(f"--out {out}: {_ENDINGS}")
    return _FORMATS[out.suffix.lower()]


def save_images(
    client: httpx2.Client, images: Sequence[Mapping[str, Any]], target: Target
) -> list[SavedImage]:
    """Download `images`, as a job lists them, to the target.

    Raises:
        ClientError: an image cannot be downloaded, or a file cannot be written.
    """
    saved = []
    for index, image in enumerate(images):
        path = _path(target, image, index, len(images))
        # If the images are in a bucket, the service redirects to a signed URL.
        content = send(client, "GET", image["url"], timeout=60, follow_redirects=True).content
        _write(path, content, target)
        saved.append(SavedImage(path, image["seed"], image["url"]))
    if target.sheet is not None and saved:
        _write(target.sheet, _sheet([image.path for image in saved], target.sheet), target)
    return saved


def _write(path: Path, content: bytes, target: Target) -> None:
    """Write a whole file or none, also when interrupted."""
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not target.may_overwrite:
            raise ClientError(f"{path} exists; --force overwrites it")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise ClientError(f"cannot write {path}: {exc.strerror}") from exc


def _sheet(files: Sequence[Path], path: Path) -> bytes:
    """All images side by side on one, with the mark of AI-made images."""
    # Imported here: only contact sheets need them.
    from PIL import Image

    from worker.images.metadata import png_chunks, xmp

    pictures = []
    for file in files:
        with Image.open(file) as image:
            pictures.append(image.convert("RGB"))
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width = max(picture.width for picture in pictures) + _GAP
    height = max(picture.height for picture in pictures) + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _BACKGROUND)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture, (_GAP + column * width, _GAP + row * height))
    kind = _FORMATS[path.suffix.lower()]
    mark = {"pnginfo": png_chunks(None, None)} if kind == "png" else {"xmp": xmp(None)}
    written = BytesIO()
    sheet.save(written, kind, **mark)
    return written.getvalue()


def _is_folder(out: Path | None) -> bool:
    if out is None or not out.suffix:
        return True
    with contextlib.suppress(OSError):  # `_exists` tells it
        return out.is_dir()
    return False


def _exists(path: Path) -> bool:
    """Whether there is such a file.

    Raises:
        WrongUsage: that cannot be told: its name is too long, or its folder cannot be read.
    """
    try:
        return path.exists()
    except OSError as exc:
        raise WrongUsage(f"cannot write {path}: {exc.strerror}") from exc


def _require_writable(folder: Path) -> None:
    """Refuse a folder that can neither be written nor made."""
    there = next(place for place in (folder, *folder.parents) if _exists(place))
    if not there.is_dir():
        raise WrongUsage(f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise WrongUsage(f"the folder {there} cannot be written")


def _numbered(out: Path, count: int) -> list[Path]:
    return [out] if count == 1 else [out.with_stem(f"{out.stem}-{k}") for k in range(count)]


def _path(target: Target, image: Mapping[str, Any], index: int, count: int) -> Path:
    """The name that was asked for, numbered if there are several; in a folder, one of the seed.

    A name that nobody asked for overwrites nothing.
    """
    if not _is_folder(target.out):
        return _numbered(target.out or Path(), count)[index]
    folder = target.out or Path()
    suffix = _SUFFIXES[image["format"]]
    path, number = folder / f"{target.stem}-{image['seed']}{suffix}", 1
    while path.exists() and not target.may_overwrite:
        number += 1
        path = path.with_stem(f"{target.stem}-{image['seed']}-{number}")
    return path

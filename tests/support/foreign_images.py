"""Image files with the texts of other programs, and what is read from them."""

from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from model.recipes.imported import ImportedRequest
from tests.support.paths import DATA
from worker.images.metadata import find_recipe, read_metadata

FIELD_IMAGES = DATA / "field" / "png"
SIZE = (16, 16)


def png_with(folder: Path, **chunks: str) -> Path:
    """A PNG with text chunks by keyword; ASCII goes into tEXt, other text into iTXt."""
    info = PngInfo()
    for keyword, text in chunks.items():
        (info.add_text if text.isascii() else info.add_itxt)(keyword, text)
    return _saved(folder / "image.png", pnginfo=info)


def png_with_bytes(folder: Path, text: bytes) -> Path:
    """A PNG with a tEXt chunk `parameters` that has these bytes, whatever their encoding."""
    info = PngInfo()
    info.add(b"tEXt", b"parameters\0" + text)
    return _saved(folder / "image.png", pnginfo=info)


def with_user_comment(folder: Path, comment: bytes, suffix: str = ".jpg") -> Path:
    """A file with EXIF's UserComment."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return _saved(folder / f"image{suffix}", exif=exif.tobytes())


def with_tag(folder: Path, tag: int, value: Any, suffix: str = ".jpg") -> Path:
    """A file with a tag in the first directory of its EXIF."""
    exif = Image.Exif()
    exif[tag] = value
    return _saved(folder / f"image{suffix}", exif=exif.tobytes())


def jpeg_with_comment(folder: Path, comment: bytes) -> Path:
    """A JPEG with a comment segment."""
    return _saved(folder / "image.jpg", comment=comment)


def png_with_xmp(folder: Path, packet: str) -> Path:
    """A PNG with an XMP packet."""
    return png_with(folder, **{"XML:com.adobe.xmp": packet})


def imported(path: Path) -> ImportedRequest:
    """The request in a file; fails if there is none."""
    found = find_recipe(read_metadata(path))
    assert found is not None, f"{path.name} has no recipe"
    return found.imported


def refusal(path: Path) -> str:
    """Why the recipe in a file is refused; fails if it is read."""
    try:
        found = find_recipe(read_metadata(path))
    except ValueError as exc:
        return str(exc)
    raise AssertionError(f"{path.name} is read: {found and found.imported.fields}")


def _saved(path: Path, **options: Any) -> Path:
    Image.new("RGB", SIZE, "gray").save(path, **options)
    return path

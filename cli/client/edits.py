"""Options of `kirazuri generate` for starting from pictures and going on larger, as fields."""

import base64
import re
from pathlib import Path
from typing import Any

_STORED = re.compile(r"[0-9a-f]{40}\.[a-z]{3,4}")


class PictureError(Exception):
    """What stands for a picture on the command line is none."""


def picture(option: str, value: str) -> str:
    """A file as base64; the name or URL of an image of the service as it is.

    Raises:
        PictureError: there is no such file, and it is no such name.
    """
    file = Path(value)
    if file.is_file():
        try:
            return base64.b64encode(file.read_bytes()).decode("ascii")
        except OSError as exc:
            raise PictureError(f"{option} {value}: {exc.strerror}") from exc
    if "/images/" in value or _STORED.fullmatch(value):
        return value
    raise PictureError(f"{option} {value}: no such file, and no name of an image of the service")


def edits(
    init_image: str | None, mask: str | None, strength: float | None, hires: dict[str, Any]
) -> dict[str, Any]:
    """The fields of what was given; `hires` is a second pass' fields, None where not given.

    Raises:
        PictureError: a file is missing, or a second pass has no scale.
    """
    fields: dict[str, Any] = {"strength": strength}
    if init_image is not None:
        fields["init_image"] = picture("--init-image", init_image)
    if mask is not None:
        fields["mask"] = picture("--mask", mask)
    given = {name: value for name, value in hires.items() if value is not None}
    if given and "scale" not in given:
        raise PictureError(f"--hires-{next(iter(given))}: give --hires-scale too")
    return {**fields, "hires": given or None}

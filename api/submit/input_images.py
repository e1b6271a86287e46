"""The pictures that clients send: opened with care, read, made the right size, and stored.

The only module of this package that meets Pillow. Knows neither queue nor model.
"""

import asyncio
import copy
import io
import re
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from PIL import Image, ImageFilter, ImageOps
from pydantic import ValidationError

from api.submit.container_limits import MAX_PARTS, has_too_many_parts
from model.card import Card
from model.card_request import check_hires
from model.request import GenerationRequest, ImageFormat
from model.resolved_request import InputNames
from model.sizes import fitted_size, parse_resolution
from worker.errors import ImageExpired, ImageNotFound
from worker.images.metadata import ImageTexts, texts_of
from worker.job import JobWarning
from worker.queue.owner_index import OwnerIndex
from worker.store.image_store import ImageStore, content_name, not_found

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
_KINDS: dict[str, ImageFormat] = {
    "PNG": "png",
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "WEBP": "webp",
    "AVIF": "avif",
}
"""Pillow's names and ours; a telephone's JPEG with a preview is an MPO."""

MAX_PIXELS = 4096 * 4096
"""A larger picture is refused before it is decoded."""

MAX_SCANS = 100
"""Of a JPEG: a dozen bytes ask for one more, and each is worked through all over the picture."""

_AT_ONCE = 2
"""Requests whose pictures are in the making at one time; each may take 200 MB for a moment."""

_DATA_URL = re.compile(r"data:[\w/+.;=-]*;base64,", re.IGNORECASE)
_STORED = re.compile(r"(?:(?:https?://\S+)?/images/)?([0-9a-f]{40}\.[a-z]{3,4})", re.IGNORECASE)
"""A name, a path or a whole URL of an image of ours. Nothing is ever fetched."""

_LONGEST_NAME = 2048
_PNG_COMPRESS_LEVEL = 4

Size = tuple[int, int]


class InputImageRefused(ValueError):
    """A picture that cannot be used; `limit` is what it should have kept to."""

    def __init__(self, reason: str, limit: int | str | None = None) -> None:
        super().__init__(reason)
        self.limit = limit


@dataclass(frozen=True, slots=True)
class InputImage:
    """An opened picture, upright; `stored` is its name where it lies in the image store."""

    image: Image.Image
    data: bytes
    stored: str | None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a file is and says; `size` is its width and height in pixels, as they are stored."""

    format: ImageFormat
    size: Size
    texts: ImageTexts


def _stored_name(text: str) -> str | None:
    """The name of an image of ours, if the text is one."""
    named = _STORED.fullmatch(text) if len(text) <= _LONGEST_NAME else None
    return named[1] if named else None


class InputImages:
    """Turns what requests say of pictures into names of stored ones."""

    def __init__(self, card: Card, store: ImageStore) -> None:
        self._card = card
        self._store = store
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._belongings: OwnerIndex | None = None

    def for_owner(self, belongings: OwnerIndex) -> "InputImages":
        """The same, but stored pictures that do not belong to this owner are not there."""
        narrowed = copy.copy(self)
        narrowed._belongings = belongings
        return narrowed

    async def _hidden(self, *texts: str | None) -> Collection[str]:
        """Names of stored pictures among the texts that must not be used."""
        hidden: set[str] = set()
        if self._belongings is None:
            return hidden
        for name in filter(None, (_stored_name((text or "").strip()) for text in texts)):
            try:
                await self._belongings.check_picture(name)
            except (ImageNotFound, ImageExpired):
                hidden.add(name)
        return hidden

    async def prepare(
        self, request: GenerationRequest, *, is_stored: bool
    ) -> tuple[InputNames | None, tuple[JobWarning, ...]]:
        """Open, fit and store the pictures of a request, and say what that changed.

        None where the request has none. Where they are not `is_stored`, they are only looked at.

        Raises:
            RequestValidationError: names the field of every picture that cannot be used, or the
                scale of a second pass that the picture's own size leaves no room for.
            StoreError: they cannot be read or written just now.
            QueueUnavailable: nobody can say just now whose a stored picture is.
        """
        if request.init_image is None:
            return None, ()
        hidden = await self._hidden(request.init_image, request.mask)
        async with self._places:
            return await asyncio.to_thread(
                self._prepare, request, request.init_image, is_stored=is_stored, hidden=hidden
            )

    async def read_info(self, field: str, text: str) -> ImageInfo:
        """What the file in a field tells; the text is as those of a request's pictures.

        Raises:
            RequestValidationError: it is no usable picture.
            StoreError, QueueUnavailable: as `prepare`.
        """
        hidden = await self._hidden(text)
        async with self._places:
            return await asyncio.to_thread(self._read_info, field, text, hidden)

    def _read_info(self, field: str, text: str, hidden: Collection[str]) -> ImageInfo:
        try:
            data, _ = self._bytes_of(text.strip(), hidden)
            return read_image_info(data)
        except InputImageRefused as exc:
            raise RequestValidationError([_error(field, exc, text)]) from exc

    async def convert_mask(
        self, init_image: str, mask: str, *, is_inverted: bool, blur: int
    ) -> str:
        """A mask of another web UI as one of ours, in base64: as large as the picture it is for.

        Of a mask with transparency what is opaque is repainted. `blur` softens its edge, in pixels.

        Raises:
            RequestValidationError: one of them cannot be used.
            StoreError, QueueUnavailable: as `prepare`.
        """
        hidden = await self._hidden(init_image, mask)
        async with self._places:
            return await asyncio.to_thread(
                self._convert_mask, init_image, mask, hidden, is_inverted=is_inverted, blur=blur
            )

    def _convert_mask(
        self, init_image: str, mask: str, hidden: Collection[str], *, is_inverted: bool, blur: int
    ) -> str:
        errors: list[dict[str, Any]] = []
        start, opened = (
            self._open("init_image", init_image, errors, hidden),
            self._open("mask", mask, errors, hidden),
        )
        if start is None or opened is None:
            raise RequestValidationError(errors)
        image = opened.image
        level = _alpha_of(image) or _eight_bit(image).convert("L")
        level = level.resize(start.image.size, Image.Resampling.BILINEAR)
        if is_inverted:
            level = ImageOps.invert(level)
        if blur:
            level = level.filter(ImageFilter.GaussianBlur(blur))
        return b64encode(_png(level)).decode()

    async def mask_from_alpha(self, data: bytes) -> str:
        """A mask of ours, in base64, from a picture that is transparent where it is repainted.

        Raises:
            RequestValidationError: names `mask`; it is no usable picture, or has no transparency.
        """
        async with self._places:
            try:
                return await asyncio.to_thread(_mask_of_alpha, data)
            except InputImageRefused as exc:
                raise RequestValidationError([_error("mask", exc, None)]) from exc

    def _prepare(
        self,
        request: GenerationRequest,
        init_image: str,
        *,
        is_stored: bool,
        hidden: Collection[str],
    ) -> tuple[InputNames, tuple[JobWarning, ...]]:
        errors: list[dict[str, Any]] = []
        start = self._open("init_image", init_image, errors, hidden)
        mask = self._open("mask", request.mask, errors, hidden) if request.mask else None
        size = self._size(request, start, errors) if start else (0, 0)
        if start and mask and mask.image.size != start.image.size:
            own, wanted = _written(mask.image.size), _written(start.image.size)
            reason = InputImageRefused(f"{own} pixels, but init_image has {wanted}", wanted)
            errors.append(_error("mask", reason, request.mask))
        if errors or start is None:
            raise RequestValidationError(errors)
        files = [_file_of(start, size)]
        if mask:
            files.append((_png(_fitted(_as_mask(mask.image), size)), "png"))
        put = self._store.put if is_stored else content_name
        names = [put(data, extension) for data, extension in files]
        inputs = InputNames(names[0], names[1] if mask else None, *size)
        return inputs, tuple(_warnings(start.image.size, size))

    def _open(
        self, field: str, text: str, errors: list[dict[str, Any]], hidden: Collection[str] = ()
    ) -> InputImage | None:
        """Open what a field holds; None, and one more error, where that is no usable picture."""
        try:
            data, stored = self._bytes_of(text.strip(), hidden)
            return InputImage(decode_image(data), data, stored)
        except InputImageRefused as exc:
            errors.append(_error(field, exc, text))
            return None

    def _bytes_of(self, text: str, hidden: Collection[str]) -> tuple[bytes, str | None]:
        """A picture's file, and its name if that is what the text is."""
        name = _stored_name(text)
        if name:
            try:
                if name in hidden:
                    raise not_found(name)
                return self._store.read(name), name
            except (ImageNotFound, ImageExpired) as exc:
                raise InputImageRefused(str(exc)) from exc
        if text[:8].lower().startswith(("http://", "https://")):
            raise InputImageRefused("a URL of another place; only images of this service are read")
        prefix = _DATA_URL.match(text)
        code = text[prefix.end() :] if prefix else text
        try:
            return b64decode("".join(code.split()), validate=True), None
        except ValueError as exc:
            raise InputImageRefused(
                "neither a picture in base64 nor the name of an image of this service"
            ) from exc

    def _size(
        self, request: GenerationRequest, start: InputImage, errors: list[dict[str, Any]]
    ) -> Size:
        """The size of the first pass; one more error where the second has no room."""
        limits = self._card.limits
        size = (
            parse_resolution(request.resolution, self._card)
            if request.resolution
            else fitted_size(*start.image.size, limits)
        )
        if request.hires:
            try:
                check_hires(request.hires, *size, limits)
            except ValidationError as exc:
                errors += [{**e, "loc": ("body", "hires", *e["loc"])} for e in exc.errors()]
        return size


def decode_image(data: bytes) -> Image.Image:
    """Decode a single picture of at most MAX_PIXELS and turn it upright.

    Raises:
        PictureRefused: another format, too large, animated, or broken.
    """
    with _opened(data) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def read_image_info(data: bytes) -> ImageInfo:
    """What the file of a single picture tells; raises as `open_picture` does."""
    with _opened(data) as image:
        return ImageInfo(_KINDS[image.format or ""], image.size, texts_of(image))


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """A picture that keeps to the limits; whatever goes wrong with it is PictureRefused."""
    if has_too_many_parts(data):
        raise InputImageRefused("a file of too many parts", MAX_PARTS)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, data)
            yield image
    except InputImageRefused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise InputImageRefused("too many pixels", MAX_PIXELS) from exc
    except Exception as exc:
        # Decoders raise whatever comes to them; nothing that a client sends may be our error.
        raise InputImageRefused(f"cannot be read as one of {', '.join(FORMATS)}") from exc


def _check(image: Image.Image, data: bytes) -> None:
    """Look at what the file asks for, before anything is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputImageRefused(f"{_written(image.size)} pixels are too many", MAX_PIXELS)
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS:
        raise InputImageRefused("a JPEG of too many scans", MAX_SCANS)
    # The second picture of a telephone's JPEG is a preview.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise InputImageRefused("animated; send a single picture")


def _file_of(picture: InputImage, size: Size) -> tuple[bytes, str]:
    """A picture at its size as a file, with its extension; an image of ours that fits as it is."""
    if picture.stored and picture.image.size == size and picture.image.mode == "RGB":
        return picture.data, picture.stored.rpartition(".")[2]
    return _png(_fitted(_as_rgb(picture.image), size)), "png"


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
    return file.getvalue()


def _as_rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel; what is transparent becomes white."""
    if image.has_transparency_data:
        own = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", own.size, "white"), own).convert("RGB")
    return _eight_bit(image).convert("RGB")


def _as_mask(image: Image.Image) -> Image.Image:
    """Eight bits of light; what is transparent becomes black and is kept."""
    if image.has_transparency_data:
        own = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", own.size, "black"), own).convert("L")
    return _eight_bit(image).convert("L")


def _alpha_of(image: Image.Image) -> Image.Image | None:
    """What of a picture is opaque; None where all of it is."""
    if not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def _mask_of_alpha(data: bytes) -> str:
    """White where the picture is transparent, black where it is opaque; a PNG in base64."""
    image = decode_image(data)
    if not image.has_transparency_data:
        raise InputImageRefused("it has no alpha channel; what is transparent in it is repainted")
    alpha = image.convert("RGBA").getchannel("A")
    return b64encode(_png(ImageOps.invert(alpha))).decode("ascii")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring 16 bits of grey down to 8; Pillow by itself would cut off what is above 255."""
    if image.mode.startswith("I"):
        return image.point(lambda level: level / 257).convert("L")
    return image


def _fitted(image: Image.Image, size: Size) -> Image.Image:
    """Cover `size`, cropped in the middle. Masks are scaled without the overshoot of Lanczos."""
    if image.size == size:
        return image
    is_mask = image.mode == "L"
    method = Image.Resampling.BILINEAR if is_mask else Image.Resampling.LANCZOS
    return ImageOps.fit(image, size, method)


def _warnings(own: Size, size: Size) -> Iterator[JobWarning]:
    if own != size:
        change = "scaled" if own[0] * size[1] == own[1] * size[0] else "scaled and cropped"
        yield JobWarning(
            code="picture_fitted",
            detail=f"init_image is {_written(own)}; it was {change} to {_written(size)}",
        )


def _written(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _error(field: str, reason: InputImageRefused, text: str | None) -> dict[str, Any]:
    """One wrong field in the form of pydantic's errors."""
    return {
        "type": "picture_refused",
        "loc": ("body", field),
        "msg": str(reason),
        "input": text if text is not None and len(text) < _LONGEST_NAME else None,
        "ctx": {} if reason.limit is None else {"le": reason.limit},
    }

"""Reads the input images of a request: finds, decodes, fits and stores them."""

import asyncio
import copy
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from PIL import Image
from pydantic import ValidationError

from api.submit.images.base64_text import decode_base64
from api.submit.images.conversion import (
    alpha_mask,
    encode_png,
    foreign_mask,
    scale_and_crop,
    to_mask,
    to_rgb,
)
from api.submit.images.decoding import (
    ImageInfo,
    InputImageRefused,
    Size,
    decode_image,
    read_image_info,
    size_text,
)
from model.card import Card
from model.card_request import check_hires
from model.request import GenerationRequest
from model.resolved_request import InputNames
from model.sizes import fitted_size, parse_resolution
from worker.errors import ImageDeleted, ImageExpired, ImageNotFound, WorkerError
from worker.job import JobWarning
from worker.queue.owner_index import OwnerIndex
from worker.store.image_store import ImageStore, image_name, image_not_found
from worker.store.threads import read_in_thread, write_in_thread

_CONCURRENT_REQUESTS = 2
"""Requests whose images are decoded at once; each may briefly need 200 MB."""

_STORED = re.compile(
    r"(?:(?:https?://\S+)?/images/)?([0-9a-f]{40}\.[a-z]{3,4})(?:\?token=[\w.-]*)?", re.IGNORECASE
)
"""Name, path or URL of an image in the store, also a signed one. URLs are never fetched."""

_FOREIGN_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}://|file:", re.IGNORECASE)

_MAX_NAME_CHARS = 2048
_SMALLEST_FILE = 20
"""Bytes; a text that stands for fewer is no image but a word that happens to be base64."""

_EXPECTED = "send the image in base64, or the name of an image of this service"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InputImage:
    """A decoded image with its file; `name` is set if the file is in the image store already."""

    image: Image.Image
    data: bytes
    name: str | None


class ImageFields:
    """Reads the image fields of one request and collects an error for each unusable one."""

    def __init__(self, stored: Mapping[str, bytes | WorkerError]) -> None:
        """`stored` has the files of stored images, or why there are none, by name."""
        self._stored = stored
        self.errors: list[dict[str, Any]] = []

    def decode(self, field: str, text: str) -> InputImage | None:
        """The image of a field; None after adding to `errors`."""
        try:
            data, name = self._read(text)
            return InputImage(decode_image(data), data, name)
        except InputImageRefused as exc:
            self.errors.append(_field_error(field, exc, text))
            return None

    def read_info(self, field: str, text: str) -> ImageInfo:
        """What the file of a field says; raises RequestValidationError."""
        try:
            return read_image_info(self.read(text))
        except InputImageRefused as exc:
            raise RequestValidationError([_field_error(field, exc, text)]) from exc

    def read(self, text: str) -> bytes:
        """The file that a text holds or names; raises InputImageRefused."""
        return self._read(text)[0]

    def _read(self, text: str) -> tuple[bytes, str | None]:
        """The file that the text holds or names, and its name in the latter case."""
        text = text.strip()
        name = _stored_name(text)
        if name:
            file = self._stored.get(name, image_not_found(name))
            if isinstance(file, WorkerError):
                raise InputImageRefused(str(file))
            return file, name
        if _FOREIGN_URL.match(text):
            raise InputImageRefused("URLs of other sites are not fetched; send the image itself")
        try:
            data = decode_base64(text)
        except ValueError as exc:
            raise InputImageRefused(f"{exc}; {_EXPECTED}") from exc
        if len(data) < _SMALLEST_FILE:
            raise InputImageRefused(f"the base64 has only {len(data)} bytes; {_EXPECTED}")
        return data, None


class InputImages:
    """Turns the image fields of requests into names in the image store."""

    def __init__(self, card: Card, store: ImageStore) -> None:
        self._card = card
        self._store = store
        self._slots = asyncio.Semaphore(_CONCURRENT_REQUESTS)
        self._owner_index: OwnerIndex | None = None

    def for_owner(self, index: OwnerIndex) -> "InputImages":
        """A copy for which stored images of other owners do not exist."""
        narrowed = copy.copy(self)
        narrowed._owner_index = index
        return narrowed

    async def prepare(
        self, request: GenerationRequest, *, is_stored: bool
    ) -> tuple[InputNames | None, tuple[JobWarning, ...]]:
        """Decode, fit and store the images of a request; warn if their size changes.

        Returns None for a request without images. If not `is_stored`, nothing is written.

        Raises:
            RequestValidationError: names every unusable image, or the scale of a second pass
                that exceeds the card's limits for an image of this size.
            StoreError: the store cannot be read or written now.
            QueueUnavailable: Redis cannot say now who owns a stored image.
        """
        init_image, mask = request.init_image, request.mask
        if init_image is None:
            return None, ()
        files, own_size, size = await self._run(
            lambda fields: self._prepare(request, init_image, fields), init_image, mask or ""
        )
        names = [
            await write_in_thread(self._store.put, *file) if is_stored else image_name(*file)
            for file in files
        ]
        inputs = InputNames(names[0], names[1] if mask else None, *size)
        return inputs, _size_warnings(own_size, size)

    async def read_info(self, field: str, text: str) -> ImageInfo:
        """Format, size and texts of the image in a field.

        Raises:
            RequestValidationError: the image is unusable.
            StoreError, QueueUnavailable: as `prepare`.
        """
        return await self._run(lambda fields: fields.read_info(field, text), text)

    async def convert_mask(
        self, init_image: str, mask: str, *, is_inverted: bool, blur: int
    ) -> str:
        """Convert a mask of another web UI to one for `init_image`; a PNG in base64.

        See `foreign_mask`.

        Raises:
            RequestValidationError: names each unusable image.
            StoreError, QueueUnavailable: as `prepare`.
        """

        def convert(fields: ImageFields) -> str:
            start, own = fields.decode("init_image", init_image), fields.decode("mask", mask)
            if start is None or own is None:
                raise RequestValidationError(fields.errors)
            size = start.image.size
            return _base64_png(foreign_mask(own.image, size, is_inverted=is_inverted, blur=blur))

        return await self._run(convert, init_image, mask)

    async def mask_from_alpha(self, mask: str | bytes) -> str:
        """A mask, as a PNG in base64, that repaints the transparent pixels of an image.

        `mask` is the file of the image, or a text as in `init_image`.

        Raises:
            RequestValidationError: names `mask`: it is unusable or has no alpha channel.
            StoreError, QueueUnavailable: as `prepare`.
        """
        text = mask if isinstance(mask, str) else ""

        def convert(fields: ImageFields) -> str:
            try:
                file = mask if isinstance(mask, bytes) else fields.read(text)
                return _base64_png(alpha_mask(decode_image(file)))
            except InputImageRefused as exc:
                raise RequestValidationError([_field_error("mask", exc, text or None)]) from exc

        return await self._run(convert, text)

    async def with_image(
        self, field: str, text: str, work: Callable[[Image.Image, ImageInfo], T]
    ) -> T:
        """The result of `work` in a thread on the decoded image of a field, and on its file's info.

        Raises:
            RequestValidationError: the image is unusable.
            StoreError, QueueUnavailable: as `prepare`.
        """

        def decode_and_work(fields: ImageFields) -> T:
            info = fields.read_info(field, text)
            decoded = fields.decode(field, text)
            if decoded is None:
                raise RequestValidationError(fields.errors)
            return work(decoded.image, info)

        return await self._run(decode_and_work, text)

    async def _run(self, work: Callable[[ImageFields], T], *texts: str) -> T:
        """Do the work in a thread; `texts` are the image fields that it reads.

        The store is read before and written after it: a slow store holds no slot.
        """
        names = filter(None, (_stored_name(text.strip()) for text in texts))
        fields = ImageFields({name: await self._read_stored(name) for name in names})
        async with self._slots:
            return await asyncio.to_thread(work, fields)

    async def _read_stored(self, name: str) -> bytes | WorkerError:
        """The file of a stored image, or why there is none for the owner."""
        if self._owner_index is not None:
            try:
                await self._owner_index.check_image(name)
            except ImageDeleted as exc:
                return exc
            except (ImageNotFound, ImageExpired):
                return image_not_found(name)
        try:
            return await read_in_thread(self._store.read, name)
        except (ImageNotFound, ImageExpired) as exc:
            index = self._owner_index
            return await index.missing_image(name, exc) if index else exc

    def _prepare(
        self, request: GenerationRequest, init_image: str, fields: ImageFields
    ) -> tuple[list[tuple[bytes, str]], Size, Size]:
        """The files to store, the size of `init_image`, and the size of the first pass."""
        start = fields.decode("init_image", init_image)
        mask = fields.decode("mask", request.mask) if request.mask else None
        size = self._size(request, start, fields.errors) if start else (0, 0)
        if start and mask and mask.image.size != start.image.size:
            actual, required = size_text(mask.image.size), size_text(start.image.size)
            reason = InputImageRefused(
                f"the mask is {actual}, but init_image is {required}", required
            )
            fields.errors.append(_field_error("mask", reason, request.mask))
        if fields.errors or start is None:
            raise RequestValidationError(fields.errors)
        files = [_file_of(start, size)]
        if mask:
            files.append((encode_png(scale_and_crop(to_mask(mask.image), size)), "png"))
        return files, start.image.size, size

    def _size(
        self, request: GenerationRequest, start: InputImage, errors: list[dict[str, Any]]
    ) -> Size:
        """The size of the first pass; adds an error if the second pass exceeds the limits."""
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


def _stored_name(text: str) -> str | None:
    """The name in the image store, if the text is a reference to a stored image."""
    match = _STORED.fullmatch(text) if len(text) <= _MAX_NAME_CHARS else None
    return match[1] if match else None


def _file_of(start: InputImage, size: Size) -> tuple[bytes, str]:
    """The fitted image as a file, and its extension; a stored file that fits stays as it is."""
    if start.name and start.image.size == size and start.image.mode == "RGB":
        return start.data, start.name.rpartition(".")[2]
    return encode_png(scale_and_crop(to_rgb(start.image), size)), "png"


def _base64_png(image: Image.Image) -> str:
    return b64encode(encode_png(image)).decode("ascii")


def _size_warnings(own: Size, size: Size) -> tuple[JobWarning, ...]:
    if own == size:
        return ()
    change = "scaled" if own[0] * size[1] == own[1] * size[0] else "scaled and cropped"
    detail = f"init_image is {size_text(own)}; it was {change} to {size_text(size)}"
    return (JobWarning(code="picture_fitted", detail=detail),)


def _field_error(field: str, reason: InputImageRefused, text: str | None) -> dict[str, Any]:
    """An error in the form of pydantic's `ValidationError.errors()`."""
    return {
        "type": "picture_refused",
        "loc": ("body", field),
        "msg": str(reason),
        "input": text if text is not None and len(text) < _MAX_NAME_CHARS else None,
        "ctx": {} if reason.limit is None else {"le": reason.limit},
    }

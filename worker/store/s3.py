"""Stores images in a bucket of S3, or of a server that speaks its protocol.

An image is an object below `images/`; the mark of a deleted image is an object below `gone/`. A
request that fails at once is repeated once, because the server may have closed an idle connection.
Callers decide about longer retries.
"""

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from worker.errors import ImageExpired, ImageNotFound, StoreError
from worker.store.image_store import (
    IMMUTABLE,
    MEDIA_TYPES,
    check_intact,
    image_expired,
    image_name,
    image_not_found,
    is_image_name,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 3
"""Timeout of requests without an image; a client waits for them."""

_TRANSFER_SECONDS = 20
"""Timeout of requests with an image, at most 20 MB over a slow connection."""

_CHECKED_SECONDS = 15.0
_FAILED_SECONDS = 2.0
"""How long the result of a check is valid: checks are frequent, and each write costs money."""

_RETRY: "RetryConfig" = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=1),
    "backoff": {"init_backoff": timedelta(milliseconds=50)},
}
_PAGE = 1000
_STATUS = re.compile(r"status code: (\d{3} [A-Z][A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND = re.compile(r"kind: (\w+)")
_REASONS = {"Timeout": "it does not answer in time", "Connect": "there is no connection to it"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """The address of a bucket and its keys; None means the value of the `AWS_*` variable.

    `public_endpoint` is the endpoint as clients reach it; `prefix` has no final slash.
    """

    name: str
    prefix: str = ""
    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None

    def client(self, *, seconds: int, endpoint: str | None = None) -> S3Store:
        """A client whose requests time out after `seconds`."""
        endpoint = endpoint or self.endpoint
        given = {
            "endpoint": endpoint,
            "region": self.region,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }
        options: ClientConfig = {
            "timeout": timedelta(seconds=seconds),
            "connect_timeout": timedelta(seconds=_ANSWER_SECONDS),
        }
        if endpoint is not None:
            options["allow_http"] = endpoint.startswith("http://")
        return S3Store(
            self.name,
            prefix=self.prefix or None,
            client_options=options,
            retry_config=_RETRY,
            **_known(given),
        )


def _known(values: Mapping[str, str | None]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class S3ImageStore:
    """Images in a bucket; clients fetch them there, by URLs that are valid for `signed_seconds`."""

    def __init__(self, bucket: Bucket, *, signed_seconds: int = 3600) -> None:
        self._bucket = bucket.name
        self._signed = timedelta(seconds=signed_seconds)
        self._quick = bucket.client(seconds=_ANSWER_SECONDS)
        self._patient = bucket.client(seconds=_TRANSFER_SECONDS)
        self._public = bucket.client(seconds=_ANSWER_SECONDS, endpoint=bucket.public_endpoint)
        self._checking = threading.Lock()
        self._checked_until = 0.0
        self._fault: str | None = None

    def put(self, data: bytes, extension: str) -> str:
        """Store `data` and return its name.

        Overwrites an existing object: its new age keeps it from being swept. It is a single
        request, so the object is whole or missing.
        """
        name = image_name(data, extension)
        attributes = {
            "Content-Type": MEDIA_TYPES[extension],
            "Cache-Control": IMMUTABLE,
            "Content-Disposition": f'inline; filename="{name}"',
        }
        with self._errors(f"write {name}"):
            obstore.put(
                self._patient, f"images/{name}", data, attributes=attributes, use_multipart=False
            )
        return name

    def read(self, name: str) -> bytes:
        """The bytes of an image."""
        if not is_image_name(name):
            raise image_not_found(name)
        with self._errors(f"read {name}"):
            try:
                data = bytes(obstore.get(self._patient, f"images/{name}").bytes())
            except FileNotFoundError as exc:
                raise self._missing(name) from exc
        check_intact(name, data)
        return data

    def _missing(self, name: str) -> ImageExpired | ImageNotFound:
        try:
            obstore.head(self._quick, f"gone/{name}")
        except FileNotFoundError:
            return image_not_found(name)
        return image_expired(name)

    async def locate(self, name: str, *, is_head: bool = False) -> str:
        """A signed URL; asks the bucket first, to tell unknown images from deleted ones."""
        if not is_image_name(name):
            raise image_not_found(name)
        with self._errors(f"read {name}"):
            if not await self._has(f"images/{name}"):
                raise (
                    image_expired(name)
                    if await self._has(f"gone/{name}")
                    else image_not_found(name)
                )
            method: Literal["HEAD", "GET"] = "HEAD" if is_head else "GET"
            return await obstore.sign_async(self._public, method, f"images/{name}", self._signed)

    async def _has(self, key: str) -> bool:
        try:
            await obstore.head_async(self._quick, key)
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Write the mark, then delete; the next sweep repeats both if it was interrupted."""
        if self.age(name) is None:
            return
        with self._errors(f"remove {name}"):
            obstore.put(self._quick, f"gone/{name}", b"removed\n", use_multipart=False)
            obstore.delete(self._quick, f"images/{name}")

    def probe(self) -> None:
        """Raise StoreError unless an object can be written."""
        try:
            with self._errors("write"):
                obstore.put(self._quick, "writable", b"yes\n", use_multipart=False)
            self._fault = None
        except StoreError as exc:
            self._fault = str(exc)
            raise
        finally:
            held = _CHECKED_SECONDS if self._fault is None else _FAILED_SECONDS
            self._checked_until = time.monotonic() + held

    def check(self) -> None:
        """Raise StoreError unless an object can be written; probes at most every few seconds.

        During a probe, other callers get the result of the last one.
        """
        if time.monotonic() >= self._checked_until and self._checking.acquire(blocking=False):
            try:
                self.probe()
            finally:
                self._checking.release()
        if self._fault is not None:
            raise StoreError(self._fault)

    def age(self, name: str) -> float | None:
        """Seconds since an image was last stored, by the clocks of the server and of this host."""
        if not is_image_name(name):
            return None
        with self._errors(f"look at {name}"):
            try:
                return _age(obstore.head(self._quick, f"images/{name}"))
            except FileNotFoundError:
                return None

    def list_images(self) -> Iterator[tuple[str, float]]:
        """Name and age of all images."""
        for entry in self._list("images"):
            name = entry["path"].removeprefix("images/")
            if is_image_name(name):
                yield name, _age(entry)

    def clean(self, *, marks_older_than: float) -> None:
        """Remove old marks; a bucket has no leftovers."""
        old = [entry["path"] for entry in self._list("gone") if _age(entry) > marks_older_than]
        with self._errors("remove old marks"):
            for start in range(0, len(old), _PAGE):
                obstore.delete(self._patient, old[start : start + _PAGE])

    def _list(self, folder: str) -> "Iterator[ObjectMeta]":
        """All objects of a folder, page by page."""
        with self._errors("list the images"):
            pages = iter(obstore.list(self._patient, folder, chunk_size=_PAGE))
        while True:
            with self._errors("list the images"):
                page = next(pages, None)
            if page is None:
                return
            yield from page

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Turn errors of the bucket into StoreError, without addresses or requests in the text."""
        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as exc:
            logger.debug("bucket=%s %s: %s", self._bucket, doing, exc)
            raise StoreError(f"cannot {doing} in bucket {self._bucket}: {_reason(exc)}") from None


def _reason(exc: Exception) -> str:
    """The server's own reason, or else a description of the error."""
    text = str(exc)
    reasons = [found[1].strip() for found in (_STATUS.search(text), _CODE.search(text)) if found]
    kind = _KIND.search(text)
    return ", ".join(reasons) or _REASONS.get(kind[1] if kind else "", type(exc).__name__)


def _age(entry: "ObjectMeta") -> float:
    return (datetime.now(UTC) - entry["last_modified"]).total_seconds()

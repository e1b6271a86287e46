"""Pictures in a bucket of S3, or of a server that speaks its protocol.

A picture is one object below `images/`; an object of the same name below `gone/` is the mark of a
deleted one. A request that fails at once is tried once more, as a connection that was idle may
have been closed meanwhile; anything longer is up to whoever waits for the answer.
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
    content_name,
    expired,
    is_name,
    not_found,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 3
"""For requests without a picture: a client waits for them, as it does for Redis."""

_TRANSFER_SECONDS = 20
"""For a picture on its way, 20 MB at most over a slow line."""

_CHECKED_SECONDS = 15.0
_FAILED_SECONDS = 2.0
"""How long the result of a check holds: probes ask often, and every write to a bucket is paid."""

_RETRY: "RetryConfig" = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=1),
    "backoff": {"init_backoff": timedelta(milliseconds=50)},
}
_PAGE = 1000
_STATUS = re.compile(r"status code: (\d{3} [A-Z][A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND = re.compile(r"kind: (\w+)")
_WHY = {"Timeout": "it does not answer in time", "Connect": "there is no connection to it"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where the objects are and how to get at them; None leaves it to the `AWS_*` variables.

    `public_endpoint` is the endpoint as clients reach it, and `prefix` ends without a slash.
    """

    name: str
    prefix: str = ""
    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None

    def client(self, *, seconds: int, endpoint: str | None = None) -> S3Store:
        """A client whose requests take `seconds` at most."""
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
    """Pictures in a bucket; clients get them from there, by URLs signed for `signed_seconds`."""

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
        """Keep `data` and return its name.

        Not create-only: the name stands for the bytes, and a fresh object tells the sweep that
        they are wanted again. One request, so that there is never half a picture.
        """
        name = content_name(data, extension)
        attributes = {
            "Content-Type": MEDIA_TYPES[extension],
            "Cache-Control": IMMUTABLE,
            "Content-Disposition": f'inline; filename="{name}"',
        }
        with self._asking(f"write {name}"):
            obstore.put(
                self._patient, f"images/{name}", data, attributes=attributes, use_multipart=False
            )
        return name

    def read(self, name: str) -> bytes:
        """The bytes of a picture."""
        if not is_name(name):
            raise not_found(name)
        with self._asking(f"read {name}"):
            try:
                return bytes(obstore.get(self._patient, f"images/{name}").bytes())
            except FileNotFoundError as exc:
                raise self._missing(name) from exc

    def _missing(self, name: str) -> ImageExpired | ImageNotFound:
        try:
            obstore.head(self._quick, f"gone/{name}")
        except FileNotFoundError:
            return not_found(name)
        return expired(name)

    async def locate(self, name: str, *, is_head: bool = False) -> str:
        """A signed URL. Asks the bucket first, to tell what never was from what is gone."""
        if not is_name(name):
            raise not_found(name)
        with self._asking(f"read {name}"):
            if not await self._has(f"images/{name}"):
                raise expired(name) if await self._has(f"gone/{name}") else not_found(name)
            method: Literal["HEAD", "GET"] = "HEAD" if is_head else "GET"
            return await obstore.sign_async(self._public, method, f"images/{name}", self._signed)

    async def _has(self, key: str) -> bool:
        try:
            await obstore.head_async(self._quick, key)
        except FileNotFoundError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Mark, then delete: whatever breaks in between, the next sweep does it again."""
        if self.age(name) is None:
            return
        with self._asking(f"remove {name}"):
            obstore.put(self._quick, f"gone/{name}", b"removed\n", use_multipart=False)
            obstore.delete(self._quick, f"images/{name}")

    def probe(self) -> None:
        """StoreError unless an object can be written."""
        try:
            with self._asking("write"):
                obstore.put(self._quick, "writable", b"yes\n", use_multipart=False)
            self._fault = None
        except StoreError as exc:
            self._fault = str(exc)
            raise
        finally:
            held = _CHECKED_SECONDS if self._fault is None else _FAILED_SECONDS
            self._checked_until = time.monotonic() + held

    def check(self) -> None:
        """StoreError unless an object can be written; asked for at most every few seconds.

        Whoever comes while the bucket is being asked is told what was known before.
        """
        if time.monotonic() >= self._checked_until and self._checking.acquire(blocking=False):
            try:
                self.probe()
            finally:
                self._checking.release()
        if self._fault is not None:
            raise StoreError(self._fault)

    def age(self, name: str) -> float | None:
        """Seconds since a picture was last put, by the server's clock for the putting."""
        if not is_name(name):
            return None
        with self._asking(f"look at {name}"):
            try:
                return _age(obstore.head(self._quick, f"images/{name}"))
            except FileNotFoundError:
                return None

    def pictures(self) -> Iterator[tuple[str, float]]:
        """Name and age of all pictures."""
        for entry in self._list("images"):
            name = entry["path"].removeprefix("images/")
            if is_name(name):
                yield name, _age(entry)

    def clean(self, *, marks_older_than: float) -> None:
        """Remove old marks; there are no leftovers, since an object is whole or not there."""
        old = [entry["path"] for entry in self._list("gone") if _age(entry) > marks_older_than]
        with self._asking("remove old marks"):
            for start in range(0, len(old), _PAGE):
                obstore.delete(self._patient, old[start : start + _PAGE])

    def _list(self, folder: str) -> "Iterator[ObjectMeta]":
        """All objects of a folder; a page is asked for when the one before is used up."""
        with self._asking("list the pictures"):
            pages = iter(obstore.list(self._patient, folder, chunk_size=_PAGE))
        while True:
            with self._asking("list the pictures"):
                page = next(pages, None)
            if page is None:
                return
            yield from page

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        """StoreError for whatever the bucket refuses, without its address or our request."""
        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as exc:
            logger.debug("bucket=%s %s: %s", self._bucket, doing, exc)
            raise StoreError(f"cannot {doing} in bucket {self._bucket}: {_why(exc)}") from None


def _why(exc: Exception) -> str:
    """A server's own words for it, or ours for the lack of any."""
    text = str(exc)
    said = [found[1].strip() for found in (_STATUS.search(text), _CODE.search(text)) if found]
    kind = _KIND.search(text)
    return ", ".join(said) or _WHY.get(kind[1] if kind else "", type(exc).__name__)


def _age(entry: "ObjectMeta") -> float:
    return (datetime.now(UTC) - entry["last_modified"]).total_seconds()

"""Threads that turn pixels into stored files and back, beside the engine and the control loop.

A store that is away is tried again while the job keeps its lease; knows neither jobs nor Redis.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar

from model.engine.protocol import ImageReady
from model.errors import InputMissing
from model.recipes.recipe import Recipe
from model.resolved_request import ResolvedRequest
from worker.errors import ImageExpired, ImageNotFound, StoreError
from worker.images.encode import decode, encode, source_type
from worker.images.input_images import Pixels
from worker.images.metadata import EXTENSIONS
from worker.images.output_filter import OutputFilter, look
from worker.images.signing import ImageSigner
from worker.job import StoredImage
from worker.runtime.metrics import WorkerMetrics
from worker.store.image_store import ImageStore

logger = logging.getLogger(__name__)

_PAUSES = (0.2, 1.0, 3.0)
"""Seconds between tries to store a picture; the last again and again."""

_PROBE_SECONDS = 1.0
"""How often a store that was given up is asked whether it works again."""


_AGAIN_SECONDS = 0.3
"""How long a removal of the same picture is given to end, before it is stored again."""


_T = TypeVar("_T")


class StoreUnavailable(StoreError):
    """The image store could write nothing for as long as was waited for it."""


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """A stored picture, its file, and when storing it began by the monotonic clock.

    `parts` tells what was done to it, from and to when by `time.time_ns()`.
    """

    image: StoredImage
    data: bytes
    began: float
    parts: tuple[tuple[str, int, int], ...] = ()


class Publisher:
    """Filters, encodes, signs and stores pictures, and reads them, a few at a time.

    A picture is tried for `patience` seconds from the moment it was handed in or asked for.
    """

    def __init__(
        self,
        store: ImageStore,
        *,
        signer: ImageSigner | None = None,
        output_filter: OutputFilter | None = None,
        threads: int = 2,
        patience: float = 60.0,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._filter = output_filter
        self._metrics = metrics or WorkerMetrics()
        self._patience = patience
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="publisher")
        self._changed = threading.Condition()
        self._waiting: dict[str, int] = {}
        self._calls: dict[int, float] = {}
        self._is_down = False
        self._is_stopping = False
        self._probed_at = 0.0

    def submit(
        self, token: str, image: ImageReady, request: ResolvedRequest, recipe: Recipe
    ) -> "Future[PublishedImage]":
        """Publish a picture in the background; `token` tells whose it is.

        The future raises PictureRefused or FilterBroken where the operator's filter lets a picture
        not pass, SigningError where a signature is due and cannot be made, StoreDown
        where the store was away for too long, StoreError where it refuses this picture, or has it
        no longer wanted.
        """
        return self._begin(self._publish, token, image, request, recipe)

    def again(self, token: str, published: PublishedImage) -> "Future[PublishedImage]":
        """Store a picture once more: the same one of another job has just been removed."""
        return self._begin(self._publish_again, token, published)

    def fetch(self, token: str, names: Sequence[str]) -> "Future[dict[str, Pixels]]":
        """Read stored pictures; StoreDown and StoreError as `submit`, or InputMissing."""
        return self._begin(self._fetch, token, names)

    def _begin(self, work: Callable[..., _T], token: str, *what: Any) -> "Future[_T]":
        until = time.monotonic() + self._patience
        with self._changed:
            self._waiting[token] = self._waiting.get(token, 0) + 1
        future = self._pool.submit(work, token, *what, until=until)
        future.add_done_callback(lambda _: self._take_off(token))
        return future

    def _take_off(self, token: str) -> None:
        with self._changed:
            left = self._waiting.pop(token, 0) - 1
            if left > 0:
                self._waiting[token] = left

    def abandon(self, token: str) -> None:
        """Nobody wants these pictures any more: try no longer to store or read them."""
        with self._changed:
            self._waiting.pop(token, None)
            self._changed.notify_all()

    def stop(self) -> None:
        """Take no more; do not wait for what is under way."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Pictures, or the inputs of a job, that are on their way to or from the store."""
        with self._changed:
            return sum(self._waiting.values())

    @property
    def is_down(self) -> bool:
        """Whether the store was given up and has not worked since; asks it now and then."""
        now = time.monotonic()
        if self._is_down and not self._is_stopping and now - self._probed_at > _PROBE_SECONDS:
            self._probed_at = now
            with suppress(RuntimeError):  # the pool has been shut down just now
                self._pool.submit(self._probe)
        return self._is_down

    def call_seconds(self) -> float:
        """For how long the longest encoding or storing has been going on."""
        began = min(list(self._calls.values()), default=None)
        return time.monotonic() - began if began is not None else 0.0

    def _publish(
        self,
        token: str,
        image: ImageReady,
        request: ResolvedRequest,
        recipe: Recipe,
        *,
        until: float,
    ) -> PublishedImage:
        start = time.time_ns()
        with self._call():
            if self._filter is not None:
                look(self._filter, image.pixels, request)
            data = encode(image.pixels, request=request, recipe=recipe, seed=image.seed)
            unsigned_sha256 = None
            if self._signer is not None and request.metadata != "none":
                unsigned_sha256 = hashlib.sha256(data).hexdigest()
                data = self._signer(data, request.image_format, source_type(request))
        end = time.time_ns()
        self._metrics.encoded((end - start) / 1e9, request.image_format)
        name, began, stored = self._put(token, data, EXTENSIONS[request.image_format], until=until)
        height, width, _ = image.pixels.shape
        picture = StoredImage(
            url=f"/images/{name}",
            seed=image.seed,
            width=width,
            height=height,
            format=request.image_format,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            unsigned_sha256=unsigned_sha256,
        )
        return PublishedImage(picture, data, began, (("encode image", start, end), stored))

    def _publish_again(
        self, token: str, published: PublishedImage, *, until: float
    ) -> PublishedImage:
        self._is_unwanted(token, within=_AGAIN_SECONDS)
        extension = published.image.name.rpartition(".")[2]
        _, began, stored = self._put(token, published.data, extension, until=until)
        return replace(published, began=began, parts=(stored,))

    def _fetch(self, token: str, names: Sequence[str], *, until: float) -> dict[str, Pixels]:
        pictures = {}
        for name in names:
            try:
                data = self._insist(token, partial(self._store.read, name), until=until)
                pictures[name] = decode(data)
            except (ImageNotFound, ImageExpired) as exc:
                raise InputMissing(str(exc)) from exc
            except (OSError, SyntaxError) as exc:
                raise InputMissing(f"{name} cannot be read as a picture") from exc
        return pictures

    def _put(
        self, token: str, data: bytes, extension: str, *, until: float
    ) -> tuple[str, float, tuple[str, int, int]]:
        """The name, and when the try that worked began; the same as a part."""

        def put() -> tuple[str, float, tuple[str, int, int]]:
            began, start = time.monotonic(), time.time_ns()
            name = self._store.put(data, extension)
            self._metrics.stored(time.monotonic() - began)
            return name, began, ("store image", start, time.time_ns())

        return self._insist(token, put, until=until)

    def _insist(self, token: str, what: Callable[[], _T], *, until: float) -> _T:
        """Try until it works, the time is over, or nobody wants it any more."""
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                return self._try(what)
            except StoreError as exc:
                self._metrics.store_failed()
                if time.monotonic() + pause > until:
                    self._give_up(exc)
                    break
                logger.warning("event=store_failed reason=%s pause=%.1fs", exc, pause)
                if self._is_unwanted(token, within=pause):
                    raise
        return self._try(what)

    def _try(self, what: Callable[[], _T]) -> _T:
        with self._call():
            result = what()
        self._is_down = False
        return result

    def _is_unwanted(self, token: str, *, within: float) -> bool:
        """Wait so many seconds, or until the picture is abandoned."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_stopping or token not in self._waiting, timeout=within
            )

    def _give_up(self, exc: StoreError) -> None:
        """StoreDown where the store takes nothing, and not only refuses one picture."""
        try:
            with self._call():
                self._store.probe()
        except StoreError:
            self._is_down = True
            raise StoreUnavailable(str(exc)) from exc

    def _probe(self) -> None:
        with suppress(StoreError), self._call():
            self._store.probe()
            self._is_down = False

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Note when this thread began what it is about to do."""
        me = threading.get_ident()
        self._calls[me] = time.monotonic()
        try:
            yield
        finally:
            del self._calls[me]

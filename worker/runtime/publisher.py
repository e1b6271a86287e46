"""Publishes images in background threads: filter, encode, sign, store. Also reads input images.

While the store fails it tries again, and the job keeps its lease.
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
from worker.images.encode import decode_image, digital_source_type, encode_image
from worker.images.input_images import Pixels
from worker.images.metadata import EXTENSIONS
from worker.images.output_filter import OutputFilter, check_output
from worker.images.signing import ImageSigner
from worker.job import StoredImage
from worker.runtime.metrics import WorkerMetrics
from worker.store.image_store import ImageStore

logger = logging.getLogger(__name__)

_PAUSES = (0.2, 1.0, 3.0)
"""Seconds between attempts to store an image; the last one repeats."""

_PROBE_SECONDS = 1.0
"""Time between checks whether a failed store works again."""

_AGAIN_SECONDS = 0.3
"""An image that is being deleted is stored again after this pause."""

_T = TypeVar("_T")


class StoreUnavailable(StoreError):
    """The image store wrote nothing for the whole time that the publisher tried."""


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """A stored image with its file. Storing began at `began` of the monotonic clock.

    `stages` are (name, begin, end) with times of `time.time_ns()`.
    """

    image: StoredImage
    data: bytes
    began: float
    stages: tuple[tuple[str, int, int], ...] = ()


class Publisher:
    """Publishes and reads a few images at a time.

    For each image it tries up to `patience` seconds. The caller names its job by a token; `abandon`
    ends all attempts for a token. `on_done` is called, in any thread, when a future is done.
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
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._filter = output_filter
        self._metrics = metrics or WorkerMetrics()
        self._patience = patience
        self._on_done = on_done
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="publisher")
        # Apart, so that jobs get their input images while all writes are slow.
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._changed = threading.Condition()
        self._pending: dict[str, int] = {}
        self._calls: dict[int, float] = {}
        self._is_down = False
        self._is_stopping = False
        self._probed_at = 0.0

    def publish(
        self, token: str, image: ImageReady, request: ResolvedRequest, recipe: Recipe
    ) -> "Future[PublishedImage]":
        """Publish an image in the background.

        The future raises:
            OutputRefused, OutputFilterFailed: the operator's filter did not pass the image.
            SigningError: the image cannot be signed.
            StoreUnavailable: the store did not work for too long.
            StoreError: the store refuses this image, or the image was abandoned.
        """
        return self._submit(self._pool, self._publish, token, image, request, recipe)

    def store_again(self, token: str, published: PublishedImage) -> "Future[PublishedImage]":
        """Store an image once more, because the same image of another job was just deleted."""
        return self._submit(self._pool, self._publish_again, token, published)

    def fetch(self, token: str, names: Sequence[str]) -> "Future[dict[str, Pixels]]":
        """Read stored images.

        The future raises:
            InputMissing: an image does not exist or cannot be decoded.
            StoreUnavailable, StoreError: as `publish`.
        """
        return self._submit(self._readers, self._fetch, token, names)

    def _submit(
        self, pool: ThreadPoolExecutor, task: Callable[..., _T], token: str, *args: Any
    ) -> "Future[_T]":
        until = time.monotonic() + self._patience
        with self._changed:
            self._pending[token] = self._pending.get(token, 0) + 1
        future = pool.submit(task, token, *args, until=until)
        future.add_done_callback(lambda _: self._discount(token))
        return future

    def _discount(self, token: str) -> None:
        with self._changed:
            left = self._pending.pop(token, 0) - 1
            if left > 0:
                self._pending[token] = left
        self._on_done()

    def abandon(self, token: str) -> None:
        """Stop trying to store or read the images of this token."""
        with self._changed:
            self._pending.pop(token, None)
            self._changed.notify_all()

    def stop(self) -> None:
        """Accept no more images; does not wait for running work."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for pool in (self._pool, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def pending(self) -> int:
        """Number of images to be published, plus jobs whose inputs are being read."""
        with self._changed:
            return sum(self._pending.values())

    @property
    def is_down(self) -> bool:
        """Whether the store failed and has written nothing since; checks it now and then."""
        now = time.monotonic()
        if self._is_down and not self._is_stopping and now - self._probed_at > _PROBE_SECONDS:
            self._probed_at = now
            with suppress(RuntimeError):  # the pool may be shut down by now
                self._pool.submit(self._probe)
        return self._is_down

    def call_seconds(self) -> float:
        """Age of the oldest running call of filter, encoder, signer or store; 0 without any."""
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
        with self._timed_call():
            if self._filter is not None:
                check_output(self._filter, image.pixels, request)
            data = encode_image(image.pixels, request=request, recipe=recipe, seed=image.seed)
            unsigned_sha256 = None
            if self._signer is not None and request.metadata != "none":
                unsigned_sha256 = hashlib.sha256(data).hexdigest()
                data = self._signer(data, request.image_format, digital_source_type(request))
        end = time.time_ns()
        self._metrics.observe_encoding((end - start) / 1e9, request.image_format)
        name, began, stored = self._put(token, data, EXTENSIONS[request.image_format], until=until)
        height, width, _ = image.pixels.shape
        stored_image = StoredImage(
            url=f"/images/{name}",
            seed=image.seed,
            width=width,
            height=height,
            format=request.image_format,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            unsigned_sha256=unsigned_sha256,
        )
        return PublishedImage(stored_image, data, began, (("encode image", start, end), stored))

    def _publish_again(
        self, token: str, published: PublishedImage, *, until: float
    ) -> PublishedImage:
        self._wait_abandoned(token, seconds=_AGAIN_SECONDS)
        extension = published.image.name.rpartition(".")[2]
        _, began, stored = self._put(token, published.data, extension, until=until)
        return replace(published, began=began, stages=(stored,))

    def _fetch(self, token: str, names: Sequence[str], *, until: float) -> dict[str, Pixels]:
        images = {}
        for name in names:
            try:
                data = self._retry(token, partial(self._store.read, name), until=until)
                images[name] = decode_image(data)
            except (ImageNotFound, ImageExpired) as exc:
                raise InputMissing(str(exc)) from exc
            except (OSError, SyntaxError) as exc:
                raise InputMissing(f"{name} cannot be decoded as an image") from exc
        return images

    def _put(
        self, token: str, data: bytes, extension: str, *, until: float
    ) -> tuple[str, float, tuple[str, int, int]]:
        """Store a file; returns its name, when the successful attempt began, and its stage."""

        def put() -> tuple[str, float, tuple[str, int, int]]:
            began, start = time.monotonic(), time.time_ns()
            name = self._store.put(data, extension)
            self._is_down = False
            self._metrics.observe_storing(time.monotonic() - began)
            return name, began, ("store image", start, time.time_ns())

        return self._retry(token, put, until=until)

    def _retry(self, token: str, call: Callable[[], _T], *, until: float) -> _T:
        """Call until it works, the time is over, or the token is abandoned."""
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            try:
                return self._try(call)
            except StoreError as exc:
                self._metrics.count_store_failure()
                if time.monotonic() + pause > until:
                    self._raise_if_down(exc)
                    break
                logger.warning("event=store_failed reason=%s pause=%.1fs", exc, pause)
                if self._wait_abandoned(token, seconds=pause):
                    raise
        return self._try(call)

    def _try(self, call: Callable[[], _T]) -> _T:
        with self._timed_call():
            return call()

    def _wait_abandoned(self, token: str, *, seconds: float) -> bool:
        """Wait; returns True at once when the token is abandoned or the publisher stops."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_stopping or token not in self._pending, timeout=seconds
            )

    def _raise_if_down(self, exc: StoreError) -> None:
        """Raise StoreUnavailable if the store accepts nothing, and not only refuses one image."""
        try:
            with self._timed_call():
                self._store.probe()
        except StoreError:
            self._is_down = True
            raise StoreUnavailable(str(exc)) from exc

    def _probe(self) -> None:
        with suppress(StoreError), self._timed_call():
            self._store.probe()
            self._is_down = False

    @contextmanager
    def _timed_call(self) -> Iterator[None]:
        """Record when this thread began a call that may hang."""
        me = threading.get_ident()
        self._calls[me] = time.monotonic()
        try:
            yield
        finally:
            del self._calls[me]

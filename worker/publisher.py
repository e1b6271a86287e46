"""Threads that turn pixels into stored files, beside the engine and the control loop."""

import hashlib
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from model.protocol import ImageReady
from model.recipe import Recipe
from model.request import ResolvedRequest
from worker.errors import StoreError
from worker.images import EXTENSIONS, encode
from worker.job import StoredImage
from worker.store import ImageStore

logger = logging.getLogger(__name__)

_PAUSES = (0.2, 1.0, 3.0)
"""Seconds between tries to store a picture; the job keeps its lease meanwhile."""


class Publisher:
    """Encodes and stores pictures, a few at a time."""

    def __init__(self, store: ImageStore, *, threads: int = 2) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="publisher")

    def submit(
        self, image: ImageReady, request: ResolvedRequest, recipe: Recipe
    ) -> "Future[StoredImage]":
        """Publish a picture in the background; the future raises StoreError where it cannot."""
        return self._pool.submit(self._publish, image, request, recipe)

    def stop(self) -> None:
        """Take no more; do not wait for what is under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _publish(self, image: ImageReady, request: ResolvedRequest, recipe: Recipe) -> StoredImage:
        data = encode(image.pixels, request=request, recipe=recipe, seed=image.seed)
        name = self._put(data, EXTENSIONS[request.image_format])
        height, width, _ = image.pixels.shape
        return StoredImage(
            url=f"/images/{name}",
            seed=image.seed,
            width=width,
            height=height,
            format=request.image_format,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def _put(self, data: bytes, extension: str) -> str:
        for pause in _PAUSES:
            try:
                return self._store.put(data, extension)
            except StoreError as exc:
                logger.warning("%s; again in %.1f s", exc, pause)
                time.sleep(pause)
        return self._store.put(data, extension)

"""Deletes expired images in the background, and files that no record knows.

After an upgrade it first lists the jobs of older releases.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from redis.exceptions import RedisError

from worker.errors import StoreError
from worker.queue.image_removal import ImageRemoval
from worker.queue.owner_index import OldRecords
from worker.store.image_store import ImageStore

logger = logging.getLogger(__name__)

_ORPHANS_SECONDS = 3600
"""Time between searches for orphans. An orphan must also be this much older than any result."""

_FRESH_SECONDS = 60
"""A younger image may belong to a job that has not reported it yet."""

_MARKS_SECONDS = 30 * 86_400
_PAGE = 100


class Sweeper:
    """Sweeps one round at a time in its own thread: a store may be slow."""

    def __init__(
        self,
        store: ImageStore,
        removal: ImageRemoval,
        old_records: OldRecords,
        *,
        result_ttl: float,
    ) -> None:
        self._store = store
        self._removal = removal
        self._old_records = old_records
        self._orphan_age = result_ttl + _ORPHANS_SECONDS
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sweeper")
        self._round: Future[None] | None = None
        self._is_stopping = False

    def wake(self) -> None:
        """Start a round, unless one is running."""
        if self._round is None or self._round.done():
            self._round = self._pool.submit(self._sweep)

    def stop(self) -> None:
        """End the round after the current image."""
        self._is_stopping = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def finish(self) -> None:
        """Wait for the end of the round."""
        if self._round is not None:
            self._round.result()

    def _sweep(self) -> None:
        try:
            while not self._is_stopping and self._old_records.index_page():
                pass
            while (names := self._removal.begin()) and not self._is_stopping:
                self._remove(names)
            if self._removal.start_orphan_search(every=_ORPHANS_SECONDS):
                self._remove_orphans()
        except (StoreError, RedisError, OSError) as exc:
            logger.warning("event=not_swept reason=%s", exc)
        except Exception:
            logger.exception("event=sweep_failed")

    def _remove_orphans(self) -> None:
        old = (name for name, age in self._store.list_images() if age > self._orphan_age)
        while names := list(islice(old, _PAGE)):
            self._remove(self._removal.begin(names))
        self._store.clean(marks_older_than=_MARKS_SECONDS)

    def _remove(self, names: list[str]) -> None:
        """Delete these images; a later round tries the fresh ones and the failures again."""
        touched: list[str] = []
        later = list(names)
        try:
            for name in names:
                if self._is_stopping:
                    break
                age = self._store.age(name)
                if age is None or age > _FRESH_SECONDS:
                    touched.append(name)
                    self._store.delete(name)
                    later.remove(name)
        finally:
            self._removal.end(touched, later)
            if len(later) < len(names):
                logger.info("event=swept images=%d", len(names) - len(later))

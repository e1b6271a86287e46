"""Deletes pictures together with their records, in a thread of its own: a store may take its time.

Knows the ledger and the store; whose turn it is to sweep is decided elsewhere.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from redis.exceptions import RedisError

from worker.errors import StoreError
from worker.queue.worker_queue import WorkerQueue
from worker.store.image_store import ImageStore

logger = logging.getLogger(__name__)

_ORPHANS_SECONDS = 3600
"""How often bytes that no record knows are looked for, and how much older than any result."""

_FRESH_SECONDS = 60
"""A picture stored so lately may be for a job that is not on record yet."""

_MARKS_SECONDS = 30 * 86_400
_PAGE = 100


class Sweeper:
    """One round at a time, in the background."""

    def __init__(self, store: ImageStore, ledger: WorkerQueue, *, result_ttl: float) -> None:
        self._store = store
        self._ledger = ledger
        self._oldest = result_ttl + _ORPHANS_SECONDS
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sweeper")
        self._round: Future[None] | None = None
        self._is_stopping = False

    def wake(self) -> None:
        """Begin a round, unless one is under way."""
        if self._round is None or self._round.done():
            self._round = self._pool.submit(self._sweep)

    def stop(self) -> None:
        """End after the picture in hand."""
        self._is_stopping = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def finish(self) -> None:
        """Wait for the end of the round."""
        if self._round is not None:
            self._round.result()

    def _sweep(self) -> None:
        try:
            self._remove(self._ledger.begin_removal())
            if self._ledger.may_look_for_orphans(every=_ORPHANS_SECONDS):
                self._remove_orphans()
        except (StoreError, RedisError, OSError) as exc:
            logger.warning("event=not_swept reason=%s", exc)
        except Exception:
            logger.exception("event=sweep_failed")

    def _remove_orphans(self) -> None:
        old = (name for name, age in self._store.pictures() if age > self._oldest)
        while names := list(islice(old, _PAGE)):
            self._remove(self._ledger.begin_removal(names))
        self._store.clean(marks_older_than=_MARKS_SECONDS)

    def _remove(self, names: list[str]) -> None:
        """Delete these; what is fresh or cannot be deleted is left to a later round."""
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
            self._ledger.end_removal(touched, later)
            if len(later) < len(names):
                logger.info("event=swept pictures=%d", len(names) - len(later))

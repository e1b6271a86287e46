"""A worker's control loop in a thread, around a fake engine."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from worker.runtime.batch_worker import BatchWorker

RunWorker = Callable[..., AbstractContextManager[BatchWorker]]

"""The type of the fixture `run_worker`: a control loop in a thread, with a fake engine."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from worker.runtime.batch_worker import BatchWorker

RunWorker = Callable[..., AbstractContextManager[BatchWorker]]

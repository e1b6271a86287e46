"""Runs blocking calls of an image store in threads of their own.

So a slow store delays what needs the store, and nothing else in the process.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_READS = ThreadPoolExecutor(16, thread_name_prefix="store-read")
_WRITES = ThreadPoolExecutor(8, thread_name_prefix="store-write")
_CHECKS = ThreadPoolExecutor(1, thread_name_prefix="store-check")
"""Threads start when they are first needed."""


async def read_in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run a call that reads from the store."""
    return await _run(_READS, work, *args)


async def write_in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run a call that writes to the store."""
    return await _run(_WRITES, work, *args)


async def check_in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run a check of the store: it waits neither for reads nor for writes."""
    return await _run(_CHECKS, work, *args)


async def _run(pool: ThreadPoolExecutor, work: Callable[..., T], *args: Any) -> T:
    call = partial(contextvars.copy_context().run, work, *args)
    return await asyncio.get_running_loop().run_in_executor(pool, call)

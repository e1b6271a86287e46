"""Measures how the cost of a function grows with its input, independently of machine speed."""

import gc
import time
from collections.abc import Callable

SHORT, LONG = 4_000, 64_000


def grows_linearly(work: Callable[[str], object], piece: str) -> bool:
    """Whether 16 times as long a text, repeated from `piece`, takes clearly less than 256 times.

    Compares CPU times of this thread, a second time if the first looks wrong. A linear
    algorithm takes about 16 times as long, a quadratic one 256 times; the limit is 64.
    """
    short, long = (piece * (length // len(piece) + 1) for length in (SHORT, LONG))
    return any(_cpu_seconds(work, long) < 64 * _cpu_seconds(work, short) + 0.005 for _ in range(2))


def _cpu_seconds(work: Callable[[str], object], text: str) -> float:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        began = time.thread_time()
        work(text)
        return time.thread_time() - began
    finally:
        if was_enabled:
            gc.enable()

"""Start-up without garbage collections, which would look through every library again and again.

Ctrl-C during a start prints no traceback.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def long_lived() -> Iterator[None]:
    """What is made here stays until the process ends, and the garbage collector ignores it.

    A collection of everything that torch and the libraries load takes longer than a step, and as
    Python makes two when it ends, more than a second there.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def end_on_interrupt() -> None:
    """Let Ctrl-C end this process at once: it has begun nothing, or has ended all.

    An exception instead could be raised within any library.
    """
    import signal  # here: within `long_lived` it causes no collection

    signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end this process at once meanwhile."""
    import signal

    before = signal.getsignal(signal.SIGINT)
    end_on_interrupt()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

"""Start-up without garbage collections, which would look through every library again and again."""

import gc
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

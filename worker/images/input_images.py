"""Pictures that jobs in hand start from: read before the engine asks, which waits for no store.

Knows neither jobs nor the store; a holder's token stands for its job.
"""

import threading

import numpy
from numpy.typing import NDArray

from model.errors import InputMissing

Pixels = NDArray[numpy.uint8]


class HeldImages:
    """Pixels by name, for as long as a token holds them; used by all threads of a worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, Pixels]] = {}

    def hold(self, token: str, pictures: dict[str, Pixels]) -> None:
        """Keep these, uint8 (height, width, 3), until `let_go`."""
        with self._lock:
            self._held[token] = pictures

    def let_go(self, token: str) -> None:
        """This token needs its pictures no more."""
        with self._lock:
            self._held.pop(token, None)

    def read(self, name: str) -> Pixels:
        """What a token holds under this name; InputMissing where none does."""
        with self._lock:
            for pictures in self._held.values():
                if name in pictures:
                    return pictures[name]
        raise InputMissing(f"{name} was not read before it was needed")

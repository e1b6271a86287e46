"""Holds the input images of running jobs in memory, so that the engine waits for no store."""

import threading

import numpy
from numpy.typing import NDArray

from model.errors import InputMissing

Pixels = NDArray[numpy.uint8]


class HeldImages:
    """Pixels by name, held per job token; all threads of a worker use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, Pixels]] = {}

    def hold(self, token: str, images: dict[str, Pixels]) -> None:
        """Hold these images, uint8 (height, width, 3), until `release`."""
        with self._lock:
            self._held[token] = images

    def release(self, token: str) -> None:
        """Release the images of a token."""
        with self._lock:
            self._held.pop(token, None)

    def read(self, name: str) -> Pixels:
        """The image of this name. Raises InputMissing if no token holds it."""
        with self._lock:
            for images in self._held.values():
                if name in images:
                    return images[name]
        raise InputMissing(f"{name} was not read before it was needed")

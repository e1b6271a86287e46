"""A cache of tensors that keeps the most recently used ones within a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ByteCache(Generic[Value]):
    """Remembers values by key. Not thread-safe.

    `size_of` returns a value's size in bytes. The least recently used values are forgotten when
    all together exceed `limit` bytes; a value that exceeds it alone is never kept.
    """

    def __init__(self, limit: int, size_of: Callable[[Value], int]) -> None:
        self._limit = limit
        self._size_of = size_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self.size = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key; `make` computes it if it is not remembered."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = make()
        self._values[key] = value
        self.size += self._size_of(value)
        while self.size > self._limit:
            _, forgotten = self._values.popitem(last=False)
            self.size -= self._size_of(forgotten)
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.size = 0

"""Finds free loopback ports."""

import os
import socket
from itertools import count

_FIRST, _COUNT = 10_000, 22_000
"""Ports below those that systems give to whoever asks for any port: 32768 (Linux) or 49152."""

_numbers = count(100 * os.getpid())  # test processes begin apart


def free_port() -> int:
    """A port that is free, for a program that opens it later.

    The system gives it to no other program meanwhile, neither to one that connects nor to one that
    asks for any port. This process gets each port once.
    """
    for number in _numbers:
        port = _FIRST + number % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the numbers have no end")


def free_socket() -> socket.socket:
    """A listening socket on a free loopback port."""
    # With an explicit protocol asyncio disables Nagle's algorithm, which costs 40 ms per response.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener

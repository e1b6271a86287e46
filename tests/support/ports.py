"""Finds free loopback ports."""

import socket


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_socket() -> socket.socket:
    """A listening socket on a free loopback port."""
    # With an explicit protocol asyncio disables Nagle's algorithm, which costs 40 ms per response.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener

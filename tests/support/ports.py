"""Free loopback ports."""

import socket


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_socket() -> socket.socket:
    """A listening socket on a free loopback port."""
    # With the protocol named asyncio turns Nagle's algorithm off, which else costs 40 ms an answer.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener

"""A connection ends so that its client can read the last response, if it is still there."""

import asyncio
import socket

from api.middleware.lingering import LingeringTransport


class ResetTransport(asyncio.Transport):
    """The transport of a client that has reset the connection, which the loop does not know yet."""

    def __init__(self) -> None:
        super().__init__()
        self.is_cut = False
        self.connection = socket.socket()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.connection.shutdown(socket.SHUT_WR)  # as asyncio does; raises OSError

    def is_closing(self) -> bool:
        return self.is_cut

    def abort(self) -> None:
        self.is_cut = True
        self.connection.close()


async def test_a_client_that_is_gone_is_cut_off() -> None:
    transport = ResetTransport()
    LingeringTransport(transport, lambda: False).close()
    assert transport.is_cut

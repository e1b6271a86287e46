"""A proxy that breaks off the first POST: the service sees its client leave, the client waits."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.waiting import wait_until


class HoldingProxy:
    """Passes bytes between clients and the service at `url`; `posts` counts the POSTs it has seen.

    It breaks off the first POST once `is_accepted` says so; without that, the service would take
    its response for delivered. The client gets nothing until it hangs up. The proxy reads no HTTP:
    a POST is what begins with that word.
    """

    def __init__(self, url: str, is_accepted: Callable[[], bool]) -> None:
        address = urlsplit(url)
        self._upstream = (address.hostname or "", address.port or 80)
        self._is_accepted = is_accepted
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.posts = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as service:
            first = client.recv(65536)
            is_broken_off = self._count(first)
            service.sendall(first)
            if is_broken_off:
                threading.Thread(target=self._break_off, args=(service,), daemon=True).start()
            else:
                threading.Thread(target=_pass_back, args=(service, client), daemon=True).start()
            with suppress(OSError):  # the client has hung up
                while data := client.recv(65536):
                    self._count(data)
                    with suppress(OSError):  # broken off: the client still waits
                        service.sendall(data)
            _shut_down(service)

    def _count(self, data: bytes) -> bool:
        """Count a POST; whether it is the first one."""
        with self._lock:
            self.posts += data.startswith(b"POST ")
            return self.posts == 1 and data.startswith(b"POST ")

    def _break_off(self, service: socket.socket) -> None:
        wait_until(self._is_accepted, seconds=60)
        _shut_down(service)


def _pass_back(service: socket.socket, client: socket.socket) -> None:
    with suppress(OSError):
        while data := service.recv(65536):
            client.sendall(data)
    _shut_down(client)


def _shut_down(end: socket.socket) -> None:
    """Shut a connection down; it may be closed already."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)

"""Runs the API behind a real uvicorn in a thread."""

import threading
import time
from typing import Self

import uvicorn

from api.main import create_app
from api.server import server_config
from tests.support.ports import free_socket
from tests.support.waiting import wait_until
from worker.settings import Settings


class ApiServer:
    """uvicorn in a thread, configured as `python -m api` does."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        self._socket = free_socket()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = server_config(self.app, settings, host="127.0.0.1", port=0, stop_seconds=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    @property
    def requests_in_progress(self) -> int:
        """Requests whose handlers have not returned."""
        return len(self._server.server_state.tasks)

    def wait_for_requests(self, number: int) -> None:
        """Wait until as many requests are in progress."""
        wait_until(lambda: self.requests_in_progress == number)

    def start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

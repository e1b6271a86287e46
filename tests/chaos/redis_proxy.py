"""A TCP proxy in front of Redis that cuts, refuses, delays and stalls connections."""

import asyncio
import contextlib
import threading
import time


class CuttableProxy:
    """Forwards a free loopback port to the port `target`, in a thread.

    Each reply arrives `delay_seconds` late. While it is stalled, connections stay open and nothing
    is forwarded.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self.is_stalled = False
        self._target = target
        self._is_open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="redis-proxy", daemon=True)
        self._thread.start()
        if not self._is_ready.wait(10):
            raise RuntimeError("the proxy does not start")

    def cut(self) -> None:
        """Abort all connections."""
        self._loop.call_soon_threadsafe(self._abort)

    def shut(self) -> None:
        """Abort all connections and refuse new ones until `open`."""
        self._is_open = False
        self.cut()

    def open(self) -> None:
        """Accept connections again."""
        self._is_open = True

    def stop(self) -> None:
        """Abort everything and end."""
        self.is_stalled, self.delay_seconds = False, 0.0
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        starting = asyncio.start_server(self._join, "127.0.0.1", 0, backlog=1024)
        server = self._loop.run_until_complete(starting)
        self.port = server.sockets[0].getsockname()[1]
        self._is_ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_open:
            writer.transport.abort()
            return
        try:
            inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, inner}
        try:
            await asyncio.gather(
                self._copy(reader, inner), self._copy(inner_reader, writer, is_reply=True)
            )
        finally:
            self._writers -= {writer, inner}

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                arrived = time.monotonic()
                late = self.delay_seconds if is_reply else 0.0
                while self.is_stalled or time.monotonic() < arrived + late:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

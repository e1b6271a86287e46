"""A Redis client for many concurrent callers: commands issued at the same time share round trips.

A pool of connections runs dry when a thousand requests wait at once. Here callers never wait for a
connection of their own: commands that cannot be sent at once go together in the next round trip.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Coroutine, Iterable, Sequence
from typing import Any, cast

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import Connection
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

_Command = tuple[tuple[Any, ...], dict[str, Any]]
_Part = tuple[Sequence[_Command], "asyncio.Future[list[Any]]"]

_COMMANDS_AT_ONCE = 64
"""Commands of one round trip, so that the replies need little memory."""

_ROUND_TRIPS_AT_ONCE = 4

ANSWER_SECONDS = 2.0
"""How long Redis may take to answer while the event loop is idle."""

_TICKS = 40
_CANCEL_AGAIN_SECONDS = 1.0


class BatchingRedis(redis.asyncio.Redis):
    """A client that uses a few connections, however many callers it has.

    Commands of one step of the event loop are executed in their order. Pipelines without a
    transaction join the round trip as well; transactions have a connection of their own.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: deque[_Part] = deque()
        self._senders: set[asyncio.Task[None]] = set()
        self._is_starting = False
        self._most_senders = min(_ROUND_TRIPS_AT_ONCE, self.connection_pool.max_connections)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute one command; raises the error that Redis answers."""
        (reply,) = await self.execute_together([(args, options)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Commands that are sent together."""
        if transaction:
            return super().pipeline(transaction, shard_hint)
        return _JoiningPipeline(self)

    async def execute_together(self, commands: Sequence[_Command]) -> list[Any]:
        """Execute commands in one round trip; errors that Redis answers are among the replies.

        Raises:
            RedisError, OSError: Redis cannot be reached or does not answer.
        """
        replies = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, replies))
        if not self._is_starting and len(self._senders) < self._most_senders:
            self._is_starting = True
            self._senders.add(asyncio.create_task(self._send_waiting(), name="kirazuri-redis"))
        result: list[Any] = await replies
        return result

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Fail the commands that are not answered yet, and close the connections."""
        await _end(self._senders)
        self._senders.clear()
        self._is_starting = False
        _fail(self._waiting, asyncio.CancelledError())  # of a sender that had not begun
        self._waiting.clear()
        await super().aclose(close_connection_pool)

    async def _send_waiting(self) -> None:
        """Send round trips until no command waits."""
        self._is_starting = False
        try:
            while self._waiting:
                batch, size = [], 0
                while self._waiting and size < _COMMANDS_AT_ONCE:
                    batch.append(self._waiting.popleft())
                    size += len(batch[-1][0])
                try:
                    await _within_time(self._send_each(batch))
                except BaseException as exc:
                    # Redis is away: whoever waits need not find out by a timeout of their own.
                    _fail((*batch, *self._waiting), exc)
                    self._waiting.clear()
                    if not isinstance(exc, Exception):
                        raise
        finally:
            self._senders.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _send_each(self, batch: Sequence[_Part]) -> None:
        """Send a batch; one part at a time if a reply is unreadable: bytes that are not text.

        Raises:
            RedisError, OSError: Redis is away.
        """
        try:
            await self._send(batch)
        except ValueError as exc:
            if len(batch) == 1:
                _fail(batch, exc)
            for part in batch if len(batch) > 1 else ():
                await self._send_each([part])

    async def _send(self, batch: Sequence[_Part]) -> None:
        pool = self.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        packed: list[bytes] = []
        sent: list[_Part] = []
        for part in batch:
            try:
                packed += connection.pack_commands([args for args, _ in part[0]])
            except (RedisError, ValueError) as exc:  # the caller's mistake: an argument None
                _fail([part], exc)
            else:
                sent.append(part)
        expected = [command for commands, _ in sent for command in commands]
        try:
            found = await connection.retry.call_with_retry(
                lambda: self._exchange(connection, packed, expected),
                lambda error: connection.disconnect(error=error),
            )
        finally:
            await pool.release(connection)
        for commands, replies in sent:
            if not replies.done():
                replies.set_result(found[: len(commands)])
            del found[: len(commands)]

    async def _exchange(
        self, connection: Connection, packed: Sequence[bytes], commands: Sequence[_Command]
    ) -> list[Any]:
        found: list[Any] = []
        try:
            await connection.send_packed_command(packed)
            for args, options in commands:
                try:
                    found.append(await self.parse_response(connection, args[0], **options))
                except ResponseError as exc:
                    found.append(exc)
        except BaseException:
            await connection.disconnect(nowait=True)  # the remaining replies are of no use
            raise
        return found


class _JoiningPipeline(Pipeline):
    """A pipeline without a transaction, sent by its client together with other commands."""

    def __init__(self, client: BatchingRedis) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Execute the commands, and load the scripts that Redis does not know."""
        commands: Any = self.command_stack
        self.command_stack = []
        replies = await self._client.execute_together(commands) if commands else []
        missing = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing and self.scripts:
            for script in self.scripts:
                await self._client.script_load(script.script)
            again = await self._client.execute_together([commands[at] for at in missing])
            for at, reply in zip(missing, again, strict=True):
                replies[at] = reply
        if raise_on_error:
            self.raise_first_error(commands, replies)
        return replies


async def _within_time(work: Coroutine[Any, Any, None]) -> None:
    """Wait for the work, at most ANSWER_SECONDS.

    A busy event loop is not a fault of Redis: a reply that has arrived needs some steps of the
    loop to be noticed. So the time is counted in ticks, each of which lasts at least one step.

    Raises:
        RedisTimeout: Redis does not answer in time.
    """
    task = asyncio.create_task(work)
    try:
        for _ in range(_TICKS):
            if task.done():
                return task.result()
            await asyncio.wait({task}, timeout=ANSWER_SECONDS / _TICKS)
        if task.done():
            return task.result()
        raise RedisTimeout(f"no answer within {ANSWER_SECONDS:g} s")
    finally:
        await _end({task})


async def _end(tasks: Collection["asyncio.Task[None]"]) -> None:
    """Cancel tasks and wait for their end.

    Again and again: before Python 3.12 `asyncio.wait_for`, which redis-py uses, swallows a cancel
    that arrives just as the sending ends.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_AGAIN_SECONDS)


def _fail(parts: Iterable[_Part], exc: BaseException) -> None:
    for _, replies in parts:
        if isinstance(exc, asyncio.CancelledError):
            replies.cancel()
        elif not replies.done():  # its caller was cancelled
            replies.set_exception(exc)

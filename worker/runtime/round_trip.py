"""One round trip to Redis for all parts of a worker.

While Redis is far away or slow, a job must not wait for the round trips of all other jobs.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import NoScriptError


class RoundTrip:
    """Commands of several parts; each part reads its own replies.

    All commands may be repeated, and are, after a lost reply and after Redis has forgotten the
    scripts.
    """

    def __init__(self, connection: "Redis") -> None:
        self.pipeline: Pipeline = connection.pipeline(transaction=False)
        self._connection = connection
        self._parts: list[tuple[int, Callable[[list[Any]], None]]] = []
        self._added = 0

    def then(self, read: Callable[[list[Any]], None]) -> None:
        """Let `read` have the replies to the commands since the last call."""
        added = len(self.pipeline)
        self._parts.append((added - self._added, read))
        self._added = added

    def send(self) -> None:
        """Send everything and read the replies.

        An error that Redis answers to one part does not keep the others from their replies.

        Raises:
            RedisError, OSError: Redis is away, or answered this to one of the commands.
        """
        if not self._added:
            return
        replies = iter(self._execute())
        errors: list[Exception] = []
        for count, read in self._parts:
            own = list(islice(replies, count))
            refused = [reply for reply in own if isinstance(reply, Exception)]
            if not refused:
                read(own)
            errors += refused
        if errors:
            raise errors[0]

    def _execute(self) -> list[Any]:
        """The replies, with errors among them. Scripts are only loaded if Redis lacks them."""
        commands, scripts = self.pipeline.command_stack, set(self.pipeline.scripts)
        self.pipeline.scripts.clear()  # redis-py would ask for them in a round trip of its own
        replies: list[Any] = self.pipeline.execute(raise_on_error=False)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            with self._connection.pipeline(transaction=False) as again:
                for script in scripts:
                    again.script_load(script.script)
                again.command_stack += commands
                replies = again.execute(raise_on_error=False)[len(scripts) :]
        return replies

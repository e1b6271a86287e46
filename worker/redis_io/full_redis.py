"""A client whose writes succeed although Redis is full, so that accepted jobs can end.

At `maxmemory`, Redis refuses every command that may need memory, except in scripts that declare
`allow-oom`. Workers write only what accepted jobs and heartbeats need, and new jobs are refused
long before. So a refused command is repeated within such a script. Like every write of this
service, it may be repeated. Scripts are not repeated: they declare themselves what they may do.
"""

from typing import Any

import redis
from redis import client
from redis.exceptions import ExecAbortError, OutOfMemoryError

_RUN_ALLOWING_OOM = "#!lua flags=allow-oom\nredis.setresp(3)\nreturn redis.call(unpack(ARGV))"


class UnlimitedRedis(redis.Redis):
    """A blocking client that may exceed `maxmemory`."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command, within a script if Redis is full."""
        run: Any = super().execute_command  # untyped in redis-py
        try:
            return run(*args, **options)
        except OutOfMemoryError:
            if _is_script(args):
                raise
            return _converted(self, args, options, run(*_allowing_oom(args)))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> client.Pipeline:
        """A pipeline that may exceed `maxmemory` too."""
        return _UnlimitedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _UnlimitedPipeline(client.Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, scripts = list(self.command_stack), set(self.scripts)
        try:
            replies = super().execute(raise_on_error=False)
        except (OutOfMemoryError, ExecAbortError) as exc:  # a transaction is refused as a whole
            if not _is_out_of_memory(exc):
                raise
            replies = [exc]
        if any(_is_out_of_memory(reply) for reply in replies):
            replies = self._repeat(commands, scripts)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    def _repeat(self, commands: list[Any], scripts: set[Any]) -> list[Any]:
        """Run all commands again, so that memory is no reason to refuse them."""
        # Not as a transaction: in those, Redis 7 refuses even scripts that declare `allow-oom`.
        again: Any = client.Pipeline(self.connection_pool, self.response_callbacks, False, None)
        again.scripts = scripts
        with again:
            for args, options in commands:
                if _is_script(args):
                    again.execute_command(*args, **options)
                else:
                    again.execute_command(*_allowing_oom(args))
            replies = again.execute(raise_on_error=False)
        return [
            reply if _is_script(args) else _converted(self, args, options, reply)
            for (args, options), reply in zip(commands, replies, strict=True)
        ]


def _is_script(command: tuple[Any, ...]) -> bool:
    return str(command[0]).startswith(("EVAL", "FCALL"))


def _allowing_oom(command: tuple[Any, ...]) -> tuple[Any, ...]:
    return "EVAL", _RUN_ALLOWING_OOM, 0, *command


def _is_out_of_memory(reply: Any) -> bool:
    is_aborted = isinstance(reply, ExecAbortError) and "OOM" in str(reply)
    return is_aborted or isinstance(reply, OutOfMemoryError)


def _converted(
    own: redis.Redis, command: tuple[Any, ...], options: dict[str, Any], reply: Any
) -> Any:
    """The reply to a command as redis-py converts it."""
    callbacks: Any = own.response_callbacks
    convert = callbacks.get(command[0])
    if convert is None or isinstance(reply, Exception):
        return reply
    # "keys" is for redis-py's cache; redis-py also removes it before it converts.
    return convert(reply, **{key: value for key, value in options.items() if key != "keys"})

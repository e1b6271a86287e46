"""The API keys that this process knows: looked up without a round trip, kept up to date behind.

Where Redis cannot be asked, what it last said holds; where it never said anything, nothing opens.
"""

import asyncio
import logging
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker.auth.api_keys import ApiKey, secret_hash
from worker.auth.key_store import KeyFileError, StoredKeys, read_key_file, read_keys
from worker.redis_io.client import connect_async, disconnect, stop_task

LOOK_SECONDS = 1.0
"""How often changes are looked for: two short strings from Redis, and the file's time."""

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


class KeyCache:
    """All keys by the hash of their secret, and by their id."""

    def __init__(self, file: Path | None = None) -> None:
        """Reads the file; KeyFileError where it cannot be."""
        self._file = file
        self._stamp = _stamp(file) if file else None
        self._from_file = read_key_file(file) if file else ()
        self._from_redis: StoredKeys | None = None
        self._client: Redis | None = None
        self._watch: asyncio.Task[None] | None = None
        self._by_hash: dict[str, ApiKey] = {}
        self._by_id: dict[str, ApiKey] = {}
        self._was_armed = False
        self._sort()

    async def open(self, url: str) -> None:
        """Ask Redis for its keys, and from now on for changes; it may be away."""
        self._client = connect_async(url, max_connections=1)
        await self._look()
        self._watch = asyncio.create_task(self._keep_looking(), name="kirazuri-keys")

    async def close(self) -> None:
        """Look for changes no more."""
        if self._watch is not None:
            await stop_task(self._watch)
        if self._client is not None:
            await disconnect(self._client)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            told = await read_keys(self._client, self._from_redis) if self._client else None
        except (RedisError, OSError) as exc:
            log.debug("keys could not be asked for: %s", exc)
        else:
            if told is not self._from_redis:
                self._from_redis = told
                self._sort()
        if self._file is not None:
            await asyncio.to_thread(self._look_at_file, self._file)

    @property
    def is_known(self) -> bool:
        """Whether Redis has said which keys there are; until then a key may be one of those."""
        return self._from_redis is not None

    @property
    def is_armed(self) -> bool:
        """Whether there is a key, or was one: who revokes the last one closes the service."""
        return self._was_armed

    @property
    def is_empty(self) -> bool:
        """Whether no key would be accepted."""
        return not self._by_hash

    @property
    def link_secret(self) -> str | None:
        """What links are signed with; None until Redis has said it."""
        return self._from_redis.link_secret if self._from_redis else None

    def find(self, secret: str) -> ApiKey | None:
        """The key that this is the secret of."""
        return self._by_hash.get(secret_hash(secret))

    def by_id(self, key_id: str) -> ApiKey | None:
        """The key with this id, while it is not revoked."""
        return self._by_id.get(key_id)

    def _look_at_file(self, file: Path) -> None:
        """Read the file again if it is another one; what is wrong with it changes nothing."""
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._from_file = read_key_file(file)
        except KeyFileError as exc:
            log.warning("the keys stay as they were: %s", exc)
        else:
            self._sort()

    def _sort(self) -> None:
        """Whole tables at once: requests look keys up meanwhile. The file has the last word."""
        told = self._from_redis
        keys = [*(told.keys if told else ()), *self._from_file]
        self._by_hash = {key.hash: key for key in keys}
        self._by_id = {key.id: key for key in keys}
        self._was_armed = self._was_armed or bool(keys) or bool(told and told.version)


def _stamp(file: Path) -> _Stamp | None:
    """What changes when a file does; None where there is none."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size

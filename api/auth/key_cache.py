"""A cache of all API keys, so that a lookup needs no round trip; a task keeps it up to date.

During an outage of Redis the last known keys stay valid. Until the first successful read, no key
of Redis is accepted.
"""

import asyncio
import logging
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker.auth.api_keys import ApiKey, secret_hash
from worker.auth.key_store import KeyFileError, StoredKeys, read_key_file, read_keys
from worker.redis_io.client import connect_async, disconnect, is_outage
from worker.telemetry.background import BackgroundTask

REFRESH_SECONDS = 1.0
"""Interval between checks for changes: two short strings in Redis and the file's timestamp."""

log = logging.getLogger(__name__)

_FileState = tuple[int, int, int]


class KeyCache:
    """All keys by the hash of their secret and by their id."""

    def __init__(self, file: Path | None = None) -> None:
        """Read the key file.

        Raises:
            KeyFileError: the file cannot be read or is invalid.
        """
        self._file = file
        self._file_state = _file_state(file) if file else None
        self._from_file = read_key_file(file) if file else ()
        self._from_redis: StoredKeys | None = None
        self._client: Redis | None = None
        self._watcher = BackgroundTask("keys", self._keep_refreshing)
        self._by_hash: dict[str, ApiKey] = {}
        self._by_id: dict[str, ApiKey] = {}
        self._has_had_keys = False
        self._rebuild()

    async def open(self, url: str) -> None:
        """Read the keys from Redis, which may be down, and start to watch for changes."""
        self._client = connect_async(url, max_connections=1)
        try:
            await self._refresh()
        except Exception:
            log.exception("cannot read the keys; trying again")
        self._watcher.start()

    async def close(self) -> None:
        """Stop watching for changes."""
        await self._watcher.stop()
        if self._client is not None:
            await disconnect(self._client)

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            stored = await read_keys(self._client, self._from_redis) if self._client else None
        except (RedisError, OSError) as exc:
            if not is_outage(exc):
                raise
            log.debug("cannot read the keys: %s", exc)
        else:
            if stored is not self._from_redis:
                self._from_redis = stored
                self._rebuild()
        if self._file is not None:
            await asyncio.to_thread(self._refresh_file, self._file)

    @property
    def is_known(self) -> bool:
        """Whether the keys have been read from Redis; until then an unknown key may be valid."""
        return self._from_redis is not None

    @property
    def has_had_keys(self) -> bool:
        """Whether there is or was a key: revoking the last key does not open the service."""
        return self._has_had_keys

    @property
    def is_empty(self) -> bool:
        """Whether there are no keys."""
        return not self._by_hash

    @property
    def link_secret(self) -> str | None:
        """The secret that signs URLs; None until it has been read from Redis."""
        return self._from_redis.link_secret if self._from_redis else None

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret."""
        return self._by_hash.get(secret_hash(secret))

    def by_id(self, key_id: str) -> ApiKey | None:
        """The key with this id, unless it is revoked."""
        return self._by_id.get(key_id)

    def _refresh_file(self, file: Path) -> None:
        """Reload the file if it has changed; an invalid file leaves the keys as they are."""
        state = _file_state(file)
        if state == self._file_state:
            return
        self._file_state = state
        try:
            self._from_file = read_key_file(file)
        except KeyFileError as exc:
            log.warning("keeping the previous keys: %s", exc)
        else:
            self._rebuild()

    def _rebuild(self) -> None:
        """Replace the lookup tables at once, since requests use them; the file takes precedence."""
        stored = self._from_redis
        keys = [*(stored.keys if stored else ()), *self._from_file]
        self._by_hash = {key.hash: key for key in keys}
        self._by_id = {key.id: key for key in keys}
        self._has_had_keys = self._has_had_keys or bool(keys) or bool(stored and stored.version)


def _file_state(file: Path) -> _FileState | None:
    """Values that change whenever the file changes; None if there is no file."""
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size

"""Where API keys are kept: in Redis, where commands change them, and in a file of the operator's.

Every change leaves another version behind, so that readers ask for two short strings and no more.
"""

import logging
import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from pydantic import ValidationError

from worker.auth.api_keys import ApiKey

KEYS = "kirazuri:keys"
"""Hash: a key's name, and what is kept of it as JSON."""

KEYS_VERSION = "kirazuri:keys_version"
"""String: another one after every change. It stays when the last key goes."""

LINK_SECRET = "kirazuri:link_secret"  # noqa: S105 - where it is, not what it is
"""String: what all API processes sign links with."""

log = logging.getLogger(__name__)


class KeyFileError(ValueError):
    """The file of keys cannot be read; the message says where it is wrong."""


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """What Redis knew of keys; `version` is None where there was never one."""

    version: str | None
    link_secret: str
    keys: tuple[ApiKey, ...]


def add_key(client: "redis.Redis", key: ApiKey) -> bool:
    """Keep a key; False where the name is taken."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hsetnx(KEYS, key.name, key.model_dump_json())
        pipeline.set(KEYS_VERSION, secrets.token_hex(8))
        return bool(pipeline.execute()[0])


def revoke_key(client: "redis.Redis", name: str) -> bool:
    """Forget a key; False where there is none of this name."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hdel(KEYS, name)
        pipeline.set(KEYS_VERSION, secrets.token_hex(8))
        return bool(pipeline.execute()[0])


def list_keys(client: "redis.Redis") -> tuple[ApiKey, ...]:
    """All keys in Redis that this release understands, by name."""
    kept: Any = client.hvals(KEYS)
    return _read(kept)


async def read_keys(client: "redis.asyncio.Redis", known: StoredKeys | None) -> StoredKeys:
    """What Redis knows of keys now; `known` itself where nothing has changed since."""
    told: Any = await client.mget(KEYS_VERSION, LINK_SECRET)
    if known and told == [known.version, known.link_secret]:
        return known
    if told[1] is None:
        await client.set(LINK_SECRET, secrets.token_hex(32), nx=True)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.mget(KEYS_VERSION, LINK_SECRET)
        pipeline.hvals(KEYS)
        (version, link_secret), kept = await pipeline.execute()
    return StoredKeys(version, link_secret, _read(kept))


def _read(kept: Iterable[str | bytes]) -> tuple[ApiKey, ...]:
    """Keys from their JSON. One with limits that this release does not know opens nothing."""
    keys = []
    for text in kept:
        try:
            keys.append(ApiKey.model_validate_json(text))
        except ValidationError as exc:
            log.warning("a key in Redis is not understood, and refused: %s", _where_wrong(exc))
    return tuple(sorted(keys, key=lambda key: key.name))


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a TOML file: a table for each, named as the key, with `hash` and its limits.

    Raises:
        KeyFileError: it cannot be read, or one of its tables is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise KeyFileError(f"{path}: {exc}") from exc
    return tuple(_from_table(path, name, table) for name, table in tables.items())


def _from_table(path: Path, name: str, table: Any) -> ApiKey:
    if not isinstance(table, dict):
        raise KeyFileError(f"{path}: {name} is no table; a key begins with a line [NAME]")
    own = {field: table[field] for field in ("hash", "created_at") if field in table}
    limits = {field: value for field, value in table.items() if field not in own}
    try:
        return ApiKey.model_validate({"name": name, **own, "limits": limits})
    except ValidationError as exc:
        raise KeyFileError(f"{path}: [{name}] {_where_wrong(exc)}") from exc


def _where_wrong(exc: ValidationError) -> str:
    """Fields and reasons, without the values."""
    return "; ".join(
        f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
    )

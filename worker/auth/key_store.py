"""Stores API keys in Redis, and reads them from a TOML file.

Every change sets a new version, so that readers usually fetch only two short strings.
"""

import logging
import re
import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from pydantic import ValidationError

from worker.auth.api_keys import ApiKey, KeyLimits

KEYS = "kirazuri:keys"
"""Hash of keys: name to ApiKey as JSON."""

KEYS_VERSION = "kirazuri:keys_version"
"""String that changes with every change of the keys; it stays when the last key is revoked."""

LINK_SECRET = "kirazuri:link_secret"  # noqa: S105 - the name of a Redis key
"""String: the secret with which all API processes sign links."""

_HARMLESS_NAME = re.compile("(?!kzr_)[A-Za-z0-9._-]{1,24}")
"""A secret is longer."""

_FIELDS = ("hash", "created_at", *KeyLimits.model_fields)

log = logging.getLogger(__name__)


class KeyFileError(ValueError):
    """The key file cannot be read; the message names the place."""


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """The keys in Redis; `version` is None if no key was ever added."""

    version: str | None
    link_secret: str
    keys: tuple[ApiKey, ...]


def add_key(client: "redis.Redis", key: ApiKey) -> bool:
    """Add a key; False if the name is taken."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hsetnx(KEYS, key.name, key.model_dump_json())
        pipeline.set(KEYS_VERSION, secrets.token_hex(8))
        return bool(pipeline.execute()[0])


def revoke_key(client: "redis.Redis", name: str) -> bool:
    """Delete a key; False if there is none of this name."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hdel(KEYS, name)
        pipeline.set(KEYS_VERSION, secrets.token_hex(8))
        return bool(pipeline.execute()[0])


def list_keys(client: "redis.Redis") -> tuple[ApiKey, ...]:
    """All keys in Redis that this release understands, sorted by name."""
    kept: Any = client.hvals(KEYS)
    return _read(kept)


async def read_keys(client: "redis.asyncio.Redis", known: StoredKeys | None) -> StoredKeys:
    """The keys in Redis now; returns `known` itself if nothing has changed."""
    version, link_secret = await client.mget(KEYS_VERSION, LINK_SECRET)
    if known and (version, link_secret) == (known.version, known.link_secret):
        return known
    if link_secret is None:
        await client.set(LINK_SECRET, secrets.token_hex(32), nx=True)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.mget(KEYS_VERSION, LINK_SECRET)
        pipeline.hvals(KEYS)
        (version, link_secret), kept = await pipeline.execute()
    return StoredKeys(version, link_secret, _read(kept))


def _read(kept: Iterable[str | bytes]) -> tuple[ApiKey, ...]:
    """Keys from their JSON, sorted by name; leaves out keys with unknown limits."""
    keys = []
    for text in kept:
        try:
            keys.append(ApiKey.model_validate_json(text))
        except ValidationError as exc:
            log.warning("a key in Redis cannot be parsed and is ignored: %s", _where_wrong(exc))
    return tuple(sorted(keys, key=lambda key: key.name))


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a TOML file: a table per key, named like it, with `hash` and limits.

    Raises:
        KeyFileError: the file cannot be read, or a table is invalid.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise KeyFileError(f"{path}: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise KeyFileError(f"{path}: it is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as exc:
        place = str(exc).rpartition("(")[2].rstrip(")")  # what is before it may show a name
        raise KeyFileError(f"{path}: it is not valid TOML {place}") from None
    return tuple(
        _from_table(path, number, name, table)
        for number, (name, table) in enumerate(tables.items(), 1)
    )


def _from_table(path: Path, number: int, name: str, table: Any) -> ApiKey:
    # A name may be a secret that is in the wrong place.
    place = f"[{name}]" if _HARMLESS_NAME.fullmatch(name) else f"entry {number}"
    if not isinstance(table, dict):
        raise KeyFileError(
            f"{path}: entry {number} is not a table; a key begins with a line [NAME]"
        )
    metadata = {field: table[field] for field in ("hash", "created_at") if field in table}
    limits = {field: value for field, value in table.items() if field not in metadata}
    try:
        return ApiKey.model_validate({"name": name, **metadata, "limits": limits})
    except ValidationError as exc:
        raise KeyFileError(f"{path}: {place} {_where_wrong(exc)}") from None


def _where_wrong(exc: ValidationError) -> str:
    """Fields and reasons without values and unknown names, which may be secrets."""
    return "; ".join(
        f"has an entry that is none of {', '.join(_FIELDS)}"
        if error["type"] == "extra_forbidden"
        else f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
        for error in exc.errors()
    )

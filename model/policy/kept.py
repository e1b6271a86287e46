"""Keeps what takes long to compute in files beside the compiled modules, as Python keeps these.

The name of a file says all that decides what is in it, so none is out of date. One that is
damaged or foreign is as if it were not there; a folder that cannot be written is no error.
"""

import hashlib
import importlib.util
import json
import logging
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_PACKAGES = ("anyascii", "confusable-homoglyphs")
"""Packages whose tables decide how a text is folded."""

_SEAL_BYTES = 32
"""A digest of the key and of what follows."""

_MAX_FILES = 8
"""Older ones are deleted, as each change of a rule file makes another."""


def _digest_of_code() -> str | None:
    """A digest of this package, so that nobody needs to know which modules matter.

    None if there are no sources.
    """
    digest = hashlib.sha256()
    try:
        modules = sorted(Path(__file__).parent.rglob("*.py"))
        for module in modules:
            digest.update(hashlib.sha256(module.read_bytes()).digest())
    except OSError:
        return None
    return digest.hexdigest() if modules else None


_CODE = _digest_of_code()
"""Taken at import: of the code that runs, even if an upgrade replaces it a moment later."""


def kept(name: str, inputs: object, compute: Callable[[], Value]) -> Value:
    """What `compute` makes of some inputs with code of this package, from a file if there is one.

    Both are what JSON has: lists, dictionaries with texts as keys, texts and numbers.
    """
    key = _key(inputs)
    if key is None or sys.implementation.cache_tag is None:  # this Python keeps no modules
        return compute()
    path = _path(name, key)
    value: Value | None = _read(path, key)
    if value is None:
        value = compute()
        if not sys.dont_write_bytecode:
            _write(path, key, value)
    return value


def _key(inputs: object) -> str | None:
    """A digest of all that decides: inputs, code, versions of Unicode's tables and of packages.

    None if one of these is not known.
    """
    if _CODE is None:
        return None
    try:
        versions = [_CODE, sys.version, sys.byteorder, *map(version, _PACKAGES)]
    except PackageNotFoundError as exc:
        log.debug("nothing is kept: %s", exc)
        return None
    return hashlib.sha256(json.dumps([versions, inputs]).encode()).hexdigest()


def _path(name: str, key: str) -> Path:
    """Where Python would keep a module of this name."""
    module = Path(__file__).with_name(f"{name}-{key[:32]}.py")
    return Path(importlib.util.cache_from_source(module, optimization="")).with_suffix(".kept")


def _read(path: Path, key: str) -> Value | None:
    """The value of a file; None unless it is whole and belongs to the key."""
    try:
        with path.open("rb") as file:
            seal, written = file.read(_SEAL_BYTES), file.read()
    except OSError:
        return None
    if seal != _seal(key, written):
        return None
    value: Value = json.loads(written)
    return value


def _write(path: Path, key: str, value: object) -> None:
    new = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("xb") as file:
            written = json.dumps(value, separators=(",", ":")).encode()
            file.write(_seal(key, written))
            file.write(written)
        new.replace(path)
    except OSError as exc:
        log.debug("%s is not kept: %s", path, exc)
        with suppress(OSError):
            new.unlink()
    else:
        with suppress(OSError):  # other processes may delete them at the same time
            _delete_old(path)


def _seal(key: str, written: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(written)
    return digest.digest()


def _delete_old(path: Path) -> None:
    """Keep the newest files of this name and Python; the others may be of writers that died."""
    name, tag = path.name.partition("-")[0], path.name.partition(".")[2]
    files = sorted(path.parent.glob(f"{name}-*.{tag}*"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-_MAX_FILES]:
        file.unlink()

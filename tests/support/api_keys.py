"""Makes API keys."""

from typing import Any

import httpx2

from worker.auth.api_keys import ApiKey, KeyLimits, new_secret, secret_hash

LISTENS_TO_ALL = "0.0.0.0:8000"


def make_key(name: str, **limits: Any) -> tuple[str, ApiKey]:
    """A secret and its key."""
    secret = new_secret()
    return secret, ApiKey(name=name, hash=secret_hash(secret), limits=KeyLimits(**limits))


BODY = {"prompt": "1girl, smile", "steps": 1}
"""A small submission."""


def bearer(secret: str) -> dict[str, str]:
    """The header that sends a key."""
    return {"Authorization": f"Bearer {secret}"}


def status_with(client: httpx2.Client, headers: dict[str, str], path: str = "/capabilities") -> int:
    """The status of a GET with these headers."""
    return client.get(path, headers=headers).status_code

"""Makes API keys, and waits until a service knows them."""

from typing import Any

import httpx2

from tests.support.waiting import wait_until
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


def wait_for_keys(client: httpx2.Client, *secrets: str) -> None:
    """Wait until the service needs a key and accepts these.

    A service that has not seen a key yet answers requests with any.
    """
    wait_until(lambda: status_with(client, {}) == 401)
    wait_until(lambda: all(status_with(client, bearer(secret)) == 200 for secret in secrets))

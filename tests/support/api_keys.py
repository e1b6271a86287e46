"""Makes API keys."""

from typing import Any

from worker.auth.api_keys import ApiKey, KeyLimits, new_secret, secret_hash

LISTENS_TO_ALL = "0.0.0.0:8000"


def make_key(name: str, **limits: Any) -> tuple[str, ApiKey]:
    """A secret and its key."""
    secret = new_secret()
    return secret, ApiKey(name=name, hash=secret_hash(secret), limits=KeyLimits(**limits))

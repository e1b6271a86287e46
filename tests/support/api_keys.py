"""API keys in tests."""

import time
from collections.abc import Callable
from typing import Any

from worker.auth.api_keys import ApiKey, KeyLimits, new_secret, secret_hash

LISTENS_TO_ALL = "0.0.0.0:8000"


def make_key(name: str, **limits: Any) -> tuple[str, ApiKey]:
    secret = new_secret()
    return secret, ApiKey(name=name, hash=secret_hash(secret), limits=KeyLimits(**limits))


def eventually(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Poll until it holds: changes of keys take a moment."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)

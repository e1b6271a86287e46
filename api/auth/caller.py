"""The caller of a request: the owner of its jobs, and the limits of the API key."""

from dataclasses import dataclass

from worker.auth.api_keys import KeyLimits


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of an API key; `owner` is the id of the key, or "" if no key is needed."""

    owner: str
    limits: KeyLimits


ANYONE = Caller(owner="", limits=KeyLimits())
"""The caller of all requests that need no key."""

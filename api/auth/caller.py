"""Whose exchange it is: the owner of what comes of it, and what that owner may do."""

from dataclasses import dataclass

from worker.auth.api_keys import KeyLimits


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key; `owner` is the key's id, "" where the service asks for none."""

    owner: str
    limits: KeyLimits


ANYONE = Caller(owner="", limits=KeyLimits())
"""Everybody, where the service asks for no key."""

"""Faults of a Redis server for which the service takes no jobs, and their log lines."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from worker.settings import Settings

logger = logging.getLogger(__name__)

VOLATILE = ("eviction", "append_only_file")
"""Faults that a setting allows: the server may lose accepted jobs."""

FAULTS = ("version", "cluster", "writes", *VOLATILE, "memory", "unknown")
"""All faults. With `unknown`, the server does not tell its settings; jobs are taken then."""

_BY_ERROR = {"Error compiling script": "version", "CROSSSLOT": "cluster"}
_REASONS = {
    "version": "it is older than 7.0",
    "cluster": "it is a cluster, which the scripts of the queue do not support",
}


class ServerFault(NamedTuple):
    """A fault: one of `FAULTS`, and what is wrong."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServerState:
    """The faults of the server, and the used share of its memory: 0 without a limit."""

    used_memory: float
    faults: Sequence[ServerFault]

    def reasons(self, codes: Sequence[str]) -> list[str]:
        """What is wrong, as far as it is one of these faults."""
        return [fault.reason for fault in self.faults if fault.code in codes]


def faults_against_start(settings: Settings) -> tuple[str, ...]:
    """The faults for which a service does not start: they do not pass by themselves."""
    return ("version", "cluster", *(() if settings.allow_volatile_redis else VOLATILE))


def faults_against_jobs(settings: Settings) -> tuple[str, ...]:
    """The faults for which no job is accepted."""
    return (*faults_against_start(settings), "writes", "memory")


def faults_against_claims(settings: Settings) -> tuple[str, ...]:
    """The faults for which a worker takes no job. A full server must drain."""
    return tuple(code for code in faults_against_jobs(settings) if code != "memory")


def read_state(reply: Sequence[Any] | ResponseError) -> ServerState:
    """The state in a reply of the script `check_server`, or of a server that refuses the script."""
    if isinstance(reply, ResponseError):
        code = next((code for text, code in _BY_ERROR.items() if text in str(reply)), "writes")
        reason = _REASONS.get(code, f"it refuses writes: {reply}")
        return ServerState(0.0, [ServerFault(code, reason)])
    used, *faults = reply
    return ServerState(
        float(used), [ServerFault(text_of(code), text_of(why)) for code, why in faults]
    )


class FaultLog:
    """Logs faults when they come and go."""

    def __init__(self) -> None:
        self._known: Mapping[str, str] = {}

    def note(self, state: ServerState) -> ServerState:
        """Log what differs from the last state; returns the state."""
        found = dict(state.faults)
        for code in found.keys() - self._known.keys():
            logger.error("event=redis_unfit fault=%s reason=%s", code, found[code])
        for code in self._known.keys() - found.keys():
            logger.info("event=redis_fit fault=%s", code)
        self._known = found
        return state


def text_of(value: bytes | str) -> str:
    """A value in a reply, of a client that decodes replies or of one that does not."""
    return value.decode() if isinstance(value, bytes) else value

"""Loads the Lua scripts of this folder and calls them with named keys."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ResponseError

from worker.auth.api_keys import WEIGHTS
from worker.queue.counters import BUCKETS
from worker.queue.layout import redis_keys, rq_layout
from worker.redis_io.client import is_outage
from worker.redis_io.server_faults import ServerState, read_state

DEADLINE_NONCE = "deadline"
"""Nonce of the cancel script if the deadline of a job has passed."""

_READING = (
    *("list_jobs", "queue_position", "queue_positions", "read_events"),
    "waiting_checkpoints",
)
_FLAGS = {"admit": "", **dict.fromkeys(_READING, " flags=no-writes")}
"""A full Redis refuses `admit` only; one that refuses all writes still runs what only reads."""

_OTHER_FLAGS = " flags=allow-oom"
"""What was accepted can always end."""

_SHARED_PARTS = ("prelude", "owner", "fair_queueing", "finish", "server")


class LuaScript:
    """One script, registered with a client, blocking or asynchronous."""

    def __init__(self, client: "Redis | AsyncRedis", name: str) -> None:
        self._script: Any = client.register_script(source(name))

    def __call__(self, job_id: str, *args: Any, client: Any = None) -> Any:
        """Run the script for a job; `job_id` is "" if it is about no job.

        Returns an awaitable if the client is asynchronous. `client` may be a pipeline.
        """
        keys = list(script_keys(job_id).values())
        return self._script(keys=keys, args=[job_id, *args], client=client)


def check_server(client: "Redis") -> ServerState:
    """The faults of the server of a blocking client."""
    try:
        return read_state(LuaScript(client, "check_server")(""))
    except ResponseError as exc:
        if not is_outage(exc):
            raise
        return read_state(exc)


def script_keys(job_id: str) -> dict[str, str]:
    """The keys of every script by their names in Lua, in the order of KEYS."""
    return {
        "job": redis_keys.job_key(job_id),
        "events": redis_keys.events_key(job_id),
        "wake": redis_keys.WAKE,
        "queued": redis_keys.QUEUED,
        "running": redis_keys.RUNNING,
        "counters": redis_keys.COUNTERS,
        "images": redis_keys.IMAGES,
        "removals": redis_keys.REMOVALS,
        "mean_cost": redis_keys.MEAN_COST,
        "outbox": redis_keys.OUTBOX,
        "deadlines": redis_keys.DEADLINES,
        "old_turns": redis_keys.OLD_TURNS,
        "old_lines": redis_keys.OLD_LINES,
        "next_turns": redis_keys.NEXT_TURNS,
        "virtual_time": redis_keys.VIRTUAL_TIME,
        "solo_turn": redis_keys.SOLO_TURN,
        "checkpoints": redis_keys.CHECKPOINTS,
        "workers": redis_keys.WORKERS,
        "rq_list": rq_layout.list_key(),
        "rq_intermediate": rq_layout.intermediate_key(),
        "rq_leases": rq_layout.leases_key(),
        "rq_job": rq_layout.job_key(job_id),
        "rq_queues": rq_layout.QUEUES_KEY,
    }


@cache
def source(name: str) -> str:
    """The source of a script, with the constants and helpers that all scripts share."""
    folder = resources.files(__package__)
    parts = ((folder / f"{part}.lua").read_text("utf-8") for part in (*_SHARED_PARTS, name))
    header = "#!lua" + _FLAGS.get(name, _OTHER_FLAGS)
    return "\n".join((header, _constants(), *parts))


def _constants() -> str:
    """Definitions of what Python and Lua both know."""
    keys = {name: f"KEYS[{number}]" for number, name in enumerate(script_keys(""), 1)}
    rq = {
        "list": rq_layout.LIST_PREFIX,
        "leases": rq_layout.LEASES_PREFIX,
        "job": rq_layout.job_key(""),
        "intermediate": rq_layout.INTERMEDIATE_SUFFIX,
        "first_seen": rq_layout.FIRST_SEEN_INFIX,
        "separator": rq_layout.LEASE_SEPARATOR,
        "first_queue": rq_layout.FIRST_QUEUE,
        "workers": rq_layout.WORKERS_KEY,
        "workers_of": rq_layout.workers_key(""),
    }
    definitions = {
        "KEY": _table(keys),
        "PREFIX": _table(_literals(redis_keys.PREFIXES)),
        "RQ": _table(_literals(rq)),
        "WEIGHTS": _table(_literals(WEIGHTS)),
        "BUCKETS": _list(BUCKETS),
        "QUEUES_OLDEST_FIRST": _list(tuple(reversed(rq_layout.QUEUES))),
        "DEADLINE_NONCE": json.dumps(DEADLINE_NONCE),
        "WAITER_MS": str(redis_keys.WAITER_MS),
        "MAX_CALLS": str(redis_keys.MAX_CALLS),
    }
    return "\n".join(f"local {name} = {value}" for name, value in definitions.items())


def _literals(values: Mapping[str, str | float]) -> dict[str, str]:
    """Strings and numbers as Lua writes them, which is as JSON does."""
    return {name: json.dumps(value) for name, value in values.items()}


def _list(values: Sequence[str]) -> str:
    return "{" + ", ".join(map(json.dumps, values)) + "}"


def _table(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name} = {value}" for name, value in fields.items()) + "}"

"""Takes webhook deliveries from the outbox and records their outcome.

The scripts write a delivery together with its event. It holds the job's record at that moment.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from redis.asyncio import Redis

from worker.job import Job
from worker.queue.counters import counted
from worker.queue.layout import record, redis_keys
from worker.queue.layout.tolerant import shared_number
from worker.queue.scripts.lua_script import LuaScript
from worker.webhook import MAX_LOGGED_DELIVERIES, Webhook

DeliveryStatus = Literal["delivered", "retried", "given_up", "gone"]
"""The outcome of an attempt; `gone` if the receiver answers 410, and wants no more events."""

_ID_LENGTH = 26


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for a receiver; `attempt` counts from 1."""

    id: str
    event: str
    attempt: int
    token: str
    host: str
    fields: Mapping[str, str]

    @property
    def job_id(self) -> str:
        return self.id[:_ID_LENGTH]

    @property
    def happened_at(self) -> datetime:
        """The time of the event, which is part of the event's id at the end of this id."""
        milliseconds = int(self.id[_ID_LENGTH + 1 :].partition("-")[0])
        return datetime.fromtimestamp(milliseconds / 1000, UTC)

    def webhook(self) -> Webhook:
        """The receiver. Raises ValueError if another version of the service wrote it."""
        return Webhook.model_validate_json(self.fields["webhook"])

    def job(self) -> Job:
        """The job at the time of the event. Raises ValueError as `webhook` does."""
        job = record.read_job(self.job_id, self.fields)
        if not record.is_understood(job):
            raise ValueError(job.warnings[-1].detail)
        return job


@dataclass(frozen=True, slots=True)
class OutboxState:
    """The number of waiting deliveries, how late the oldest is, and past attempts by outcome."""

    pending: int
    overdue_seconds: float
    attempts: Mapping[str, int]


class Outbox:
    """The outbox as a sender uses it; any number of senders may share it."""

    def __init__(self, redis: "Redis", *, lease_seconds: float) -> None:
        self._redis = redis
        self._lease = lease_seconds
        self._take = LuaScript(redis, "take_deliveries")
        self._settle = LuaScript(redis, "settle_delivery")

    async def take(
        self, limit: int, *, per_host: int, in_flight: Mapping[str, int]
    ) -> list[Delivery]:
        """Lease up to `limit` deliveries that are due for `lease_seconds`.

        A host gets at most `per_host` at once, including those in `in_flight`.
        """
        token = uuid4().hex
        taken = await self._take(
            "", token, self._lease, limit, per_host, json.dumps(dict(in_flight))
        )
        return [_read(entry, token) for entry in taken]

    async def settle(
        self,
        delivery: Delivery,
        outcome: DeliveryStatus,
        *,
        delay: float = 0.0,
        seconds: float = 0.0,
        status: int | None = None,
        error: str | None = None,
    ) -> bool:
        """Record the outcome of an attempt in the job's log; a retry follows after `delay` seconds.

        Returns False if another sender has taken the delivery since, or has ended it.
        """
        entry = {
            "id": delivery.id,
            "event": delivery.event,
            "attempt": delivery.attempt,
            "seconds": round(seconds, 3),
        }
        answer = {"status": status, "error": error}
        entry |= {name: value for name, value in answer.items() if value is not None}
        reply = await self._settle(
            delivery.job_id,
            delivery.id,
            delivery.token,
            outcome,
            delay,
            json.dumps(entry),
            MAX_LOGGED_DELIVERIES,
        )
        return bool(reply == "settled")


def _read(entry: list[Any], token: str) -> Delivery:
    delivery_id, flat = entry
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    attempts = fields.pop("delivery_attempt", None)
    return Delivery(
        id=delivery_id,
        event=fields.pop("delivery_event"),
        attempt=max(0, int(shared_number("delivery_attempt", attempts))) + 1,
        token=token,
        host=fields["webhook_host"],
        fields=fields,
    )


async def read_outbox_state(redis: "Redis") -> OutboxState:
    """Read the state of the outbox."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.zcard(redis_keys.OUTBOX)
    pipeline.zrange(redis_keys.OUTBOX, 0, 0, withscores=True)
    pipeline.time()
    pipeline.hgetall(redis_keys.COUNTERS)
    pending, oldest, (seconds, micros), totals = await pipeline.execute()
    due = float(oldest[0][1]) if oldest else float("inf")
    names = ("delivered", "retried", "given_up", "gone")
    return OutboxState(
        pending=int(pending),
        overdue_seconds=round(max(0.0, seconds + micros / 1e6 - due), 3),
        attempts={name: counted(totals, f"webhook_{name}") for name in names},
    )

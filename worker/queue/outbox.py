"""The outbox: deliveries that transitions of jobs left there, taken, told of and given up.

Each holds the job's record as it was at its event. Knows neither HTTP nor what is sent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from redis.asyncio import Redis

from worker.job import Job
from worker.queue import record
from worker.webhook import LOG_LENGTH, Webhook

Outcome = Literal["delivered", "retried", "given_up", "gone"]
"""What an attempt came to: done, to be tried again, failed for good, refused for ever (410)."""

_ID_LENGTH = 26


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event that a receiver is to hear of; `attempt` counts from 1."""

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
        """The time of the event: the id ends in that of the event in the job's stream."""
        milliseconds = int(self.id[_ID_LENGTH + 1 :].partition("-")[0])
        return datetime.fromtimestamp(milliseconds / 1000, UTC)

    def webhook(self) -> Webhook:
        """Who is to be told. ValueError where another version of the service wrote it."""
        return Webhook.model_validate_json(self.fields["webhook"])

    def job(self) -> Job:
        """The job at the time of the event. ValueError as above."""
        return record.read_job(self.job_id, self.fields)


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How many deliveries wait, how late the oldest of them is, and attempts by outcome."""

    pending: int
    overdue_seconds: float
    attempts: Mapping[str, int]


class Outbox:
    """All that a sender may do; any number of senders may share one outbox."""

    def __init__(self, redis: "Redis", *, lease_seconds: float) -> None:
        self._redis = redis
        self._lease = lease_seconds
        self._take = redis.register_script(record.script("take"))
        self._settle = redis.register_script(record.script("settle"))

    async def take(self, most: int, *, per_host: int, busy: Mapping[str, int]) -> list[Delivery]:
        """Up to `most` deliveries that are due, for `lease_seconds` nobody else's.

        A host gets at most `per_host` at once, counting those in `busy`; more of them go behind.
        """
        token = uuid4().hex
        taken = await self._take(
            keys=record.script_keys(""),
            args=["", token, self._lease, most, per_host, json.dumps(busy)],
        )
        return [_read(entry, token) for entry in taken]

    async def settle(
        self,
        delivery: Delivery,
        outcome: Outcome,
        *,
        delay: float = 0.0,
        seconds: float = 0.0,
        status: int | None = None,
        error: str | None = None,
    ) -> bool:
        """Write an attempt into the job's log; `delay` seconds later comes the next, if any.

        False where another sender has taken the delivery since, or ended it.
        """
        entry = {
            "id": delivery.id,
            "event": delivery.event,
            "attempt": delivery.attempt,
            "seconds": round(seconds, 3),
        }
        told = {"status": status, "error": error}
        entry |= {name: value for name, value in told.items() if value is not None}
        reply = await self._settle(
            keys=record.script_keys(delivery.job_id),
            args=[
                delivery.job_id,
                delivery.id,
                delivery.token,
                outcome,
                delay,
                json.dumps(entry),
                LOG_LENGTH,
            ],
        )
        return bool(reply == "settled")


def _read(entry: list[Any], token: str) -> Delivery:
    delivery_id, flat = entry
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return Delivery(
        id=delivery_id,
        event=fields.pop("delivery_event"),
        attempt=int(fields.pop("delivery_attempt", 0)) + 1,
        token=token,
        host=fields["webhook_host"],
        fields=fields,
    )


async def read_state(redis: "Redis") -> OutboxState:
    """The outbox as it is now."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.zcard(record.OUTBOX)
    pipeline.zrange(record.OUTBOX, 0, 0, withscores=True)
    pipeline.time()
    pipeline.hgetall(record.TOTALS)
    pending, oldest, (seconds, micros), totals = await pipeline.execute()
    due = float(oldest[0][1]) if oldest else float("inf")
    names = ("delivered", "retried", "given_up", "gone")
    return OutboxState(
        pending=int(pending),
        overdue_seconds=round(max(0.0, seconds + micros / 1e6 - due), 3),
        attempts={name: int(totals.get(f"webhook_{name}", 0)) for name in names},
    )

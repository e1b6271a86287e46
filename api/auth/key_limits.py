"""Enforces the limits of API keys and reports what is left in response headers.

The headers follow draft-ietf-httpapi-ratelimit-headers-10.
"""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from api.auth.caller import Caller
from api.http.errors import KeyForbids
from api.http.problem import FieldError
from model.card import Card
from model.resolved_request import ResolvedRequest
from model.sizes import parse_resolution
from worker.errors import DAY_SECONDS, RateLimited
from worker.queue.owner_index import OwnerUsage
from worker.redis_io.client import unavailable_on_outage


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit of a key: `left` of `quota` remain; it resets after `reset` seconds."""

    name: str
    quota: int
    window: int | None
    unit: str | None
    left: int
    reset: int | None

    def policy(self) -> str:
        """The item for `RateLimit-Policy`."""
        window = f";w={self.window}" if self.window else ""
        unit = f';qu="{self.unit}"' if self.unit else ""
        return f'"{self.name}";q={self.quota}{window}{unit}'

    def state(self) -> str:
        """The item for `RateLimit`."""
        reset = "" if self.reset is None else f";t={self.reset}"
        return f'"{self.name}";r={self.left}{reset}'


class RateLimits:
    """Counts the submissions of each key in Redis, for all API processes together."""

    def __init__(self, client: Redis) -> None:
        option: Any = client.connection_pool  # documented by the library, missing in its type
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="kirazuri:rate",
            connection_pool=option,
        )
        # The library would make a client of its own; this one shares its round trips.
        bridge: Any = storage.bridge
        bridge.storage = client
        bridge.register_scripts()
        # A fixed window would let twice as many pass around its boundary.
        self._limiter = MovingWindowRateLimiter(storage)

    async def hit(self, owner: str, rate: str) -> tuple[bool, LimitState]:
        """Count one submission of `owner`; `rate` is a limit such as 60/minute.

        Returns whether it is within the limit, else it is not counted, and the new state.

        Raises:
            QueueUnavailable: Redis is down.
        """
        item = parse(rate)
        with unavailable_on_outage():
            # One round trip, in this order.
            is_allowed, stats = await asyncio.gather(
                self._limiter.hit(item, owner), self._limiter.get_window_stats(item, owner)
            )
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        left = max(0, stats.remaining) if is_allowed else 0
        return is_allowed, LimitState("rate", item.amount, item.get_expiry(), None, left, reset)


@dataclass(frozen=True, slots=True)
class KeyLimitCheck:
    """Checks one request against the limits of its caller's key."""

    caller: Caller
    rates: RateLimits
    card: Card
    request: Request

    async def count_ahead(self) -> None:
        """Count the submission that this HTTP request is about to make; raises as below."""
        await self._count()
        self.request.state.is_counted = True

    async def count_submission(self) -> None:
        """Count a submission, before it is processed, unless it was counted ahead.

        Raises:
            KeyForbids: the key allows no submissions.
            RateLimited: the rate limit is exceeded.
            QueueUnavailable: Redis is down.
        """
        if getattr(self.request.state, "is_counted", False):
            self.request.state.is_counted = False  # a second one counts again
        else:
            await self._count()

    async def _count(self) -> None:
        limits = self.caller.limits
        if limits.concurrency == 0:
            raise KeyForbids("this key allows no submissions")
        if limits.rate:
            is_allowed, state = await self.rates.hit(self.caller.owner, limits.rate)
            self._add_to_response([state])
            if not is_allowed:
                raise RateLimited(limits.rate, state.reset or 1)

    def check(self, request: ResolvedRequest) -> None:
        """Check the LoRAs and sizes of a request.

        Raises:
            KeyForbids: the key does not allow them; names every wrong field.
        """
        errors = [*self._wrong_loras(request), *self._wrong_sizes(request)]
        if errors:
            reasons = "; ".join(error.detail for error in errors)
            raise KeyForbids(f"this key does not allow the request: {reasons}", errors)

    def _wrong_loras(self, request: ResolvedRequest) -> Iterator[FieldError]:
        allowed = self.caller.limits.loras
        for index, lora in enumerate(request.loras if allowed is not None else ()):
            if allowed is not None and lora.name not in allowed:
                yield FieldError(
                    pointer=f"/loras/{index}/name",
                    detail=f"{lora.name} is not one of the LoRAs of this key",
                    limit=list(allowed),
                )

    def _wrong_sizes(self, request: ResolvedRequest) -> Iterator[FieldError]:
        allowed = self.caller.limits.resolutions
        if allowed is None:
            return
        sizes = set()
        for name in allowed:
            with suppress(ValueError):  # a preset of another card
                sizes.add(parse_resolution(name, self.card))
        asked = [("/resolution", request.width, request.height)]
        if request.hires:
            asked.append(("/hires/scale", request.hires.width, request.hires.height))
        for pointer, width, height in asked:
            if (width, height) not in sizes:
                yield FieldError(
                    pointer=pointer,
                    detail=f"{width}x{height} is not one of the resolutions of this key",
                    limit=list(allowed),
                )

    def report_usage(self, usage: OwnerUsage) -> None:
        """Add the headers of concurrency and quota, after the job was accepted or refused."""
        limits, states = self.caller.limits, []
        if limits.concurrency is not None:
            left = max(0, limits.concurrency - usage.unfinished)
            most = limits.concurrency
            states.append(LimitState("concurrency", most, None, "concurrent-requests", left, None))
        if limits.quota is not None:
            left = max(0, math.floor(limits.quota - usage.spent))
            reset = DAY_SECONDS - int(time.time()) % DAY_SECONDS
            quota = math.floor(limits.quota)
            states.append(LimitState("quota", quota, DAY_SECONDS, "megapixel-steps", left, reset))
        self._add_to_response(states)

    def _add_to_response(self, limits: list[LimitState]) -> None:
        """Store the limits for the authentication middleware, which sends the headers."""
        known: list[LimitState] = getattr(self.request.state, "key_limits", [])
        if limits:
            self.request.state.key_limits = [*known, *limits]


def headers(limits: list[LimitState]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`; no headers without limits."""
    if not limits:
        return {}
    return {
        "RateLimit-Policy": ", ".join(limit.policy() for limit in limits),
        "RateLimit": ", ".join(limit.state() for limit in limits),
    }

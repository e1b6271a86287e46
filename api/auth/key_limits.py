"""What a key allows its holder to ask for, how often, and the headers that tell what is left of it.

The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

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
from redis.asyncio.connection import ConnectionPool

from api.auth.caller import Caller
from api.http.errors import KeyForbids
from api.http.schemas import FieldError
from model.card import Card
from model.resolved_request import ResolvedRequest
from model.sizes import parse_resolution
from worker.errors import DAY_SECONDS, QueueUnavailable, RateLimited
from worker.queue.owner_index import OwnerIndex
from worker.redis_io.client import unavailable_on_outage


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit of a key: `quota` in all, of which `left` are left for `reset` more seconds."""

    name: str
    quota: int
    window: int | None
    unit: str | None
    left: int
    reset: int | None

    def policy(self) -> str:
        """As in `RateLimit-Policy`."""
        window = f";w={self.window}" if self.window else ""
        unit = f';qu="{self.unit}"' if self.unit else ""
        return f'"{self.name}";q={self.quota}{window}{unit}'

    def state(self) -> str:
        """As in `RateLimit`."""
        reset = "" if self.reset is None else f";t={self.reset}"
        return f'"{self.name}";r={self.left}{reset}'


class RateLimits:
    """How often keys have submitted lately, counted in Redis for all API processes together."""

    def __init__(self, pool: ConnectionPool) -> None:
        """Counts through the connections of `pool`."""
        option: Any = pool  # the library documents it, but its type does not know it
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="kirazuri:rate",
            connection_pool=option,
        )
        # Never more than the limit in any span of its length; a fixed window lets twice as many in.
        self._limiter = MovingWindowRateLimiter(storage)

    async def hit(self, owner: str, rate: str) -> LimitState:
        """Count one submission of an owner who may have `rate` of them, such as 60/minute.

        Raises:
            RateLimited: it is one too many, and not counted.
            QueueUnavailable: Redis is away.
        """
        item = parse(rate)
        with unavailable_on_outage():
            is_allowed = await self._limiter.hit(item, owner)
            stats = await self._limiter.get_window_stats(item, owner)
        reset = max(1, math.ceil(stats.reset_time - time.time()))
        if not is_allowed:
            raise RateLimited(rate, reset)
        return LimitState(
            "rate", item.amount, item.get_expiry(), None, max(0, stats.remaining), reset
        )


@dataclass(frozen=True, slots=True)
class KeyLimitCheck:
    """What one exchange's caller may do."""

    caller: Caller
    rates: RateLimits
    owner_index: OwnerIndex
    card: Card
    request: Request

    async def begin(self) -> None:
        """Before anything is made of a submission.

        Raises:
            KeyForbids: the key may submit nothing.
            RateLimited: too many came lately.
            QueueUnavailable: nobody can say.
        """
        limits = self.caller.limits
        if limits.concurrency == 0:
            raise KeyForbids("this key may submit nothing")
        if limits.rate:
            try:
                self._tell([await self.rates.hit(self.caller.owner, limits.rate)])
            except RateLimited as exc:
                amount = parse(limits.rate)
                self._tell(
                    [
                        LimitState(
                            "rate", amount.amount, amount.get_expiry(), None, 0, exc.retry_after
                        )
                    ]
                )
                raise

    def check(self, request: ResolvedRequest) -> None:
        """KeyForbids, which names every wrong field, unless the key may ask for this."""
        errors = [*self._wrong_loras(request), *self._wrong_sizes(request)]
        if errors:
            reasons = "; ".join(error.detail for error in errors)
            raise KeyForbids(f"this key does not allow it: {reasons}", errors)

    def _wrong_loras(self, request: ResolvedRequest) -> Iterator[FieldError]:
        allowed = self.caller.limits.loras
        for index, lora in enumerate(request.loras if allowed is not None else ()):
            if allowed is not None and lora.name not in allowed:
                yield FieldError(
                    pointer=f"/loras/{index}/name",
                    detail=f"{lora.name} is none of the LoRAs of this key",
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
                    detail=f"{width}x{height} is none of the resolutions of this key",
                    limit=list(allowed),
                )

    async def end(self) -> None:
        """After a job was accepted or refused: tell what is left."""
        limits = self.caller.limits
        if limits.concurrency is None and limits.quota is None:
            return
        with suppress(QueueUnavailable):
            standing = await self.owner_index.usage()
            told = []
            if limits.concurrency is not None:
                left = max(0, limits.concurrency - standing.unfinished)
                most = limits.concurrency
                told.append(
                    LimitState("concurrency", most, None, "concurrent-requests", left, None)
                )
            if limits.quota is not None:
                left = max(0, math.floor(limits.quota - standing.spent))
                reset = DAY_SECONDS - int(time.time()) % DAY_SECONDS
                quota = math.floor(limits.quota)
                told.append(LimitState("quota", quota, DAY_SECONDS, "megapixel-steps", left, reset))
            self._tell(told)

    def _tell(self, limits: list[LimitState]) -> None:
        """Headers that the gate gives to the answer, whatever its surface makes of it."""
        known: list[LimitState] = getattr(self.request.state, "key_limits", [])
        self.request.state.key_limits = [*known, *limits]


def headers(limits: list[LimitState]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`; none for no limits."""
    if not limits:
        return {}
    return {
        "RateLimit-Policy": ", ".join(limit.policy() for limit in limits),
        "RateLimit": ", ".join(limit.state() for limit in limits),
    }

"""The webhook sender process: posts the due deliveries of the outbox and records the results.

`python -m api.webhooks.sender` runs it; any number of senders can share one outbox.
"""

from worker.start_up import end_on_interrupt, interruptible

with interruptible():
    import argparse
    import asyncio
    import logging
    import random
    import signal
    import time
    from collections import Counter
    from concurrent.futures import ThreadPoolExecutor
    from typing import Any

    import httpx2
    from redis.exceptions import RedisError
    from standardwebhooks import Webhook as Signer

    from api.webhooks.message import message_body, signed_headers
    from api.webhooks.pinned_client import AttemptResult, PinnedClient
    from api.webhooks.url_policy import UrlPolicy
    from worker.queue.outbox import Delivery, DeliveryStatus, Outbox
    from worker.redis_io.client import (
        check_database,
        check_url,
        connect_async,
        disconnect,
        is_outage,
    )
    from worker.setting_values import webhook_delays, webhook_secrets
    from worker.settings import Settings, redis_dsn
    from worker.telemetry import logs, tracing
    from worker.telemetry.logs import log_context
    from worker.wrong_settings import WRONG_SETTINGS, read_settings

AT_ONCE = 64
PER_HOST = 8
"""Limit of simultaneous deliveries to one host, so that a slow receiver does not block others."""

_POLL_SECONDS = 0.25
_OUTAGE_PAUSE_SECONDS = 1.0
_JITTER = 0.1

log = logging.getLogger("api.webhooks.sender")  # the module runs as `__main__`


class WebhookSender:
    """Sends up to AT_ONCE deliveries at a time."""

    def __init__(self, outbox: Outbox, client: PinnedClient, settings: Settings) -> None:
        self._outbox = outbox
        self._client = client
        self._signers = tuple(Signer(key) for key in webhook_secrets(settings.webhook_secret))
        self._delays = webhook_delays(settings.webhook_retry_seconds)
        self._deliveries: dict[asyncio.Task[None], str] = {}
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Finish the current deliveries and start no new ones."""
        log.info("event=stopping deliveries=%d", len(self._deliveries))
        self._stop.set()

    async def run(self) -> None:
        """Send until `stop` is called; unsettled deliveries are due again when their lease ends."""
        is_redis_down = False
        while not self._stop.is_set():
            try:
                is_more = await self._start_due()
                is_redis_down = False
            except (RedisError, OSError) as exc:
                if not is_outage(exc):
                    raise
                if not is_redis_down:
                    log.warning("event=redis_away reason=%s", exc)
                is_redis_down, is_more = True, False
            await self._pause(0 if is_more else _POLL_SECONDS)
        if self._deliveries:
            await asyncio.wait(self._deliveries)

    async def _start_due(self) -> bool:
        """Start due deliveries; returns whether there were any."""
        room = AT_ONCE - len(self._deliveries)
        if room == 0:
            return False
        busy = Counter(self._deliveries.values())
        taken = await self._outbox.take(room, per_host=PER_HOST, in_flight=busy)
        for delivery in taken:
            task = asyncio.create_task(self._deliver(delivery))
            self._deliveries[task] = delivery.host
            task.add_done_callback(self._on_done)
        return bool(taken)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        """Forget the task; an unsettled delivery is due again when its lease ends."""
        del self._deliveries[task]
        if not task.cancelled() and (exc := task.exception()):
            log.error("event=webhook_not_settled", exc_info=exc)

    async def _pause(self, seconds: float) -> None:
        """Wait until a delivery is done, `stop` is called, or `seconds` have passed."""
        stop: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        await asyncio.wait(
            [stop, *self._deliveries], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        stop.cancel()

    async def _deliver(self, delivery: Delivery) -> None:
        fields = delivery.fields
        with log_context(
            request=fields.get("request_id"),
            trace_id=tracing.trace_id_of(fields.get("traceparent")),
        ):
            await self._send(delivery)

    async def _send(self, delivery: Delivery) -> None:
        began = time.monotonic()
        result = await self._attempt(delivery)
        seconds = time.monotonic() - began
        outcome = self._outcome(delivery, result)
        delay = 0.0
        if outcome == "retried":
            # Jitter spreads the retries of deliveries that failed at the same time.
            delay = self._delays[delivery.attempt - 1] * random.uniform(1, 1 + _JITTER)  # noqa: S311
        log.log(
            logging.INFO if outcome == "delivered" else logging.WARNING,
            "job=%s event=webhook_%s about=%s attempt=%d host=%s status=%s error=%s run=%.2fs",
            *(delivery.job_id, outcome, delivery.event, delivery.attempt, delivery.host),
            *(result.status, result.error, seconds),
        )
        await self._settle(delivery, outcome, result, delay=delay, seconds=seconds)

    async def _attempt(self, delivery: Delivery) -> AttemptResult:
        try:
            url, body = delivery.webhook().url, message_body(delivery)
        except ValueError:
            # Another release wrote the record; its sender may be able to read it.
            log.exception("job=%s event=webhook_unreadable", delivery.job_id)
            return AttemptResult(None, "unreadable")
        headers = signed_headers(delivery.id, body, self._signers)
        with tracing.delivery_span(
            delivery.fields.get("span") or delivery.fields.get("traceparent"),
            **{"server.address": delivery.host, "http.request.resend_count": delivery.attempt - 1},
            **{"kirazuri.job.id": delivery.job_id, "kirazuri.event": delivery.event},
        ) as sent:
            if traceparent := tracing.traceparent_of():
                headers["traceparent"] = traceparent
            result = await self._client.post(url, body, headers)
            sent(result.status, result.error)
        return result

    def _outcome(self, delivery: Delivery, result: AttemptResult) -> DeliveryStatus:
        if result.error is None:
            return "delivered"
        if result.status == httpx2.codes.GONE:
            return "gone"
        return "retried" if delivery.attempt <= len(self._delays) else "given_up"

    async def _settle(
        self,
        delivery: Delivery,
        outcome: DeliveryStatus,
        result: AttemptResult,
        *,
        delay: float,
        seconds: float,
    ) -> None:
        """Record the result. During an outage of Redis, retry until the sender stops."""
        while True:
            try:
                await self._outbox.settle(
                    delivery,
                    outcome,
                    delay=delay,
                    seconds=seconds,
                    status=result.status,
                    error=result.error,
                )
            except (RedisError, OSError) as exc:
                if not is_outage(exc) or self._stop.is_set():
                    raise
                await asyncio.sleep(_OUTAGE_PAUSE_SECONDS)
            else:
                return


async def run(settings: Settings) -> None:
    """Send until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    # Resolving a name blocks a thread.
    loop.set_default_executor(ThreadPoolExecutor(AT_ONCE, thread_name_prefix="resolve"))
    redis = connect_async(redis_dsn(settings))
    client = PinnedClient(
        UrlPolicy.from_settings(settings), seconds=settings.webhook_timeout_seconds
    )
    # The lease is longer than any attempt: another sender takes over only from a dead one.
    outbox = Outbox(redis, lease_seconds=2 * settings.webhook_timeout_seconds)
    sender = WebhookSender(outbox, client, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sender.stop)
    log.info("event=started")
    try:
        await sender.run()
    finally:
        await client.close()
        await disconnect(redis)
    log.info("event=stopped")


def main() -> None:
    """Parse the command line and run."""
    end_on_interrupt()
    parser = argparse.ArgumentParser(
        prog="python -m api.webhooks.sender",
        description="Sends the webhooks of jobs. Configured by KIRAZURI_* variables.",
    )
    parser.parse_args()
    try:
        settings = read_settings()
        check_url(redis_dsn(settings))
        check_database(redis_dsn(settings))
    except ValueError as exc:
        parser.exit(WRONG_SETTINGS, f"error: {exc}\n")
    if settings.webhook_secret is None:
        why = "KIRAZURI_WEBHOOK_SECRET is not set: there are no webhooks to send"
        parser.exit(WRONG_SETTINGS, f"error: {why}\n")
    logs.configure_logging(settings)
    tracing.start_tracing("kirazuri-webhooks")
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()

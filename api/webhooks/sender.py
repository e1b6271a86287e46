"""The sender of webhooks, a process of its own: `python -m api.webhooks.sender`.

Takes from the outbox what is due, posts it, and writes down what came of it. Any number may run.
"""

import argparse
import asyncio
import logging
import random
import signal
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx2
from redis.exceptions import RedisError
from standardwebhooks import Webhook as Signer

from api.http.schemas import job_view
from api.webhooks import url_policy as targets
from api.webhooks.schemas import WebhookMessage
from api.webhooks.url_policy import IPAddress, Resolve, UrlPolicy, UrlRefused
from worker.queue.outbox import Delivery, DeliveryStatus, Outbox
from worker.redis_io.client import connect_async, disconnect, is_outage
from worker.settings import Settings, redis_dsn, webhook_delays, webhook_secrets
from worker.telemetry import logs, tracing
from worker.telemetry.logs import log_context

AT_ONCE = 64
PER_HOST = 8
"""A receiver that is slow keeps no more than this many of the places."""

_POLL_SECONDS = 0.25
_OUTAGE_PAUSE_SECONDS = 1.0
_CONNECT_SECONDS = 5.0
_ADDRESSES_TRIED = 3
_JITTER = 0.1

log = logging.getLogger("api.webhooks.sender")  # not `__main__`, as it is run


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What came of one attempt: an HTTP status, and why it does not count as delivered."""

    status: int | None
    error: str | None


def signed_headers(delivery_id: str, body: str, secrets: tuple[Signer, ...]) -> dict[str, str]:
    """The headers of Standard Webhooks, with a signature for each secret."""
    now = datetime.now(UTC)
    signatures = [secret.sign(delivery_id, now, body) for secret in secrets]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def message(delivery: Delivery) -> str:
    """The body: the same in every attempt. ValueError where another version wrote the record."""
    base_url = delivery.webhook().base_url
    return WebhookMessage.model_validate(
        {
            "type": f"job.{delivery.event}",
            "timestamp": delivery.happened_at,
            "data": job_view(delivery.job(), base_url),
        }
    ).model_dump_json()


class PinnedPost:
    """Posts a body to a URL whose addresses have been checked, and to nowhere else."""

    def __init__(
        self,
        rules: UrlPolicy,
        *,
        seconds: float,
        resolve: Resolve = targets.resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._rules = rules
        self._seconds = seconds
        self._resolve = resolve
        # A connection is for one message: kept ones are told apart by address alone, and two
        # names may share one. No proxies or credentials from the environment.
        self._client = httpx2.AsyncClient(
            verify=tls or True,
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds)),
            headers={"User-Agent": f"kirazuri-server/{_version()}", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.aclose()

    async def __call__(self, url: str, body: str, headers: Mapping[str, str]) -> DeliveryOutcome:
        """One attempt, over after `seconds`; never raises for what a receiver does."""
        # Checked again: the rules may have changed since the submission.
        if targets.url_problem(url, self._rules):
            return DeliveryOutcome(None, "blocked_url")
        parsed = httpx2.URL(url)
        try:
            async with asyncio.timeout(self._seconds):
                addresses = await targets.addresses_of(parsed, self._rules, self._resolve)
                return await self._to_one_of(addresses, parsed, body, headers)
        except UrlRefused as exc:
            return DeliveryOutcome(None, exc.code)
        except TimeoutError:
            return DeliveryOutcome(None, "timeout")

    async def _to_one_of(
        self, addresses: list[IPAddress], url: httpx2.URL, body: str, headers: Mapping[str, str]
    ) -> DeliveryOutcome:
        """The first address that can be connected to gets it."""
        answer = DeliveryOutcome(None, "connection_failed")
        for address in addresses[:_ADDRESSES_TRIED]:
            try:
                return await self._to(address, url, body, headers)
            except httpx2.ConnectError as exc:
                answer = DeliveryOutcome(
                    None, "tls_failed" if _is_tls(exc) else "connection_failed"
                )
            except httpx2.ConnectTimeout:
                answer = DeliveryOutcome(None, "timeout")
            except httpx2.TimeoutException:
                return DeliveryOutcome(None, "timeout")
            except httpx2.HTTPError:
                return DeliveryOutcome(None, "connection_lost")
        return answer

    async def _to(
        self, address: IPAddress, url: httpx2.URL, body: str, headers: Mapping[str, str]
    ) -> DeliveryOutcome:
        """Post to an address, under the URL's own name in TLS and HTTP."""
        request = self._client.build_request(
            "POST",
            url.copy_with(host=str(address), fragment=None),
            content=body.encode(),
            headers={
                **headers,
                "Host": url.netloc.decode("ascii"),
                "Content-Type": "application/json",
            },
            extensions={"sni_hostname": targets.host_of(url)},
        )
        # The status is all that counts: what follows is never asked for, however much it is.
        response = await self._client.send(request, stream=True)
        await response.aclose()
        return _judge(response.status_code)


def _judge(status: int) -> DeliveryOutcome:
    if 200 <= status < 300:
        return DeliveryOutcome(status, None)
    return DeliveryOutcome(status, "redirect" if 300 <= status < 400 else "bad_status")


def _is_tls(exc: BaseException) -> bool:
    """Whether a failed connection failed at TLS."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class WebhookSender:
    """Keeps up to AT_ONCE deliveries under way."""

    def __init__(self, outbox: Outbox, post: PinnedPost, settings: Settings) -> None:
        self._outbox = outbox
        self._post = post
        self._signers = tuple(Signer(key) for key in webhook_secrets(settings.webhook_secret))
        self._delays = webhook_delays(settings.webhook_retry_seconds)
        self._under_way: dict[asyncio.Task[None], str] = {}
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Take no more; what is under way is finished."""
        self._stop.set()

    async def run(self) -> None:
        """Send until told to stop. What is not settled then is due again after its lease."""
        is_away = False
        while not self._stop.is_set():
            try:
                is_more = await self._take()
                is_away = False
            except (RedisError, OSError) as exc:
                if not is_outage(exc):
                    raise
                if not is_away:
                    log.warning("event=redis_away reason=%s", exc)
                is_away, is_more = True, False
            await self._pause(0 if is_more else _POLL_SECONDS)
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _take(self) -> bool:
        """Start what is due; whether there was any."""
        room = AT_ONCE - len(self._under_way)
        if room == 0:
            return False
        busy = Counter(self._under_way.values())
        taken = await self._outbox.take(room, per_host=PER_HOST, in_flight=busy)
        for delivery in taken:
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way[task] = delivery.host
            task.add_done_callback(self._over)
        return bool(taken)

    def _over(self, task: "asyncio.Task[None]") -> None:
        """Forget a task; what it could not settle is due again after its lease."""
        del self._under_way[task]
        if not task.cancelled() and (exc := task.exception()):
            log.error("event=webhook_not_settled", exc_info=exc)

    async def _pause(self, seconds: float) -> None:
        """Wait for a moment, for a place that becomes free, or for the end."""
        stop: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        await asyncio.wait(
            [stop, *self._under_way], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        stop.cancel()

    async def _deliver(self, delivery: Delivery) -> None:
        fields = delivery.fields
        with log_context(
            request=fields.get("request_id"),
            trace_id=tracing.trace_id_of(fields.get("traceparent")),
        ):
            await self._carry(delivery)

    async def _carry(self, delivery: Delivery) -> None:
        began = time.monotonic()
        answer = await self._attempt(delivery)
        seconds = time.monotonic() - began
        outcome = self._outcome(delivery, answer)
        delay = 0.0
        if outcome == "retried":
            # So that what failed together does not come back together.
            delay = self._delays[delivery.attempt - 1] * random.uniform(1, 1 + _JITTER)  # noqa: S311
        log.log(
            logging.INFO if outcome == "delivered" else logging.WARNING,
            "job=%s event=webhook_%s about=%s attempt=%d host=%s status=%s error=%s run=%.2fs",
            *(delivery.job_id, outcome, delivery.event, delivery.attempt, delivery.host),
            *(answer.status, answer.error, seconds),
        )
        await self._settle(delivery, outcome, answer, delay=delay, seconds=seconds)

    async def _attempt(self, delivery: Delivery) -> DeliveryOutcome:
        try:
            url, body = delivery.webhook().url, message(delivery)
        except ValueError:
            # Another version of the service wrote it, whose sender may understand it.
            log.exception("job=%s event=webhook_unreadable", delivery.job_id)
            return DeliveryOutcome(None, "unreadable")
        headers = signed_headers(delivery.id, body, self._signers)
        with tracing.delivery_span(
            delivery.fields.get("span") or delivery.fields.get("traceparent"),
            **{"server.address": delivery.host, "http.request.resend_count": delivery.attempt - 1},
            **{"kirazuri.job.id": delivery.job_id, "kirazuri.event": delivery.event},
        ) as sent:
            if traceparent := tracing.traceparent_of():
                headers["traceparent"] = traceparent
            answer = await self._post(url, body, headers)
            sent(answer.status, answer.error)
        return answer

    def _outcome(self, delivery: Delivery, answer: DeliveryOutcome) -> DeliveryStatus:
        if answer.error is None:
            return "delivered"
        if answer.status == httpx2.codes.GONE:
            return "gone"
        return "retried" if delivery.attempt <= len(self._delays) else "given_up"

    async def _settle(
        self,
        delivery: Delivery,
        outcome: DeliveryStatus,
        answer: DeliveryOutcome,
        *,
        delay: float,
        seconds: float,
    ) -> None:
        """Write it down, when Redis is away as soon as it is back; at the end only at once."""
        while True:
            try:
                await self._outbox.settle(
                    delivery,
                    outcome,
                    delay=delay,
                    seconds=seconds,
                    status=answer.status,
                    error=answer.error,
                )
            except (RedisError, OSError) as exc:
                if not is_outage(exc) or self._stop.is_set():
                    raise
                await asyncio.sleep(_OUTAGE_PAUSE_SECONDS)
            else:
                return


def _version() -> str:
    try:
        return version("kirazuri-server")
    except PackageNotFoundError:
        return "0+unknown"


async def run(settings: Settings) -> None:
    """Send until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    # Resolving blocks a thread for as long as a name server likes.
    loop.set_default_executor(ThreadPoolExecutor(AT_ONCE, thread_name_prefix="resolve"))
    redis = connect_async(redis_dsn(settings))
    post = PinnedPost(UrlPolicy.of(settings), seconds=settings.webhook_timeout_seconds)
    # Longer than any attempt, so that only a dead sender's deliveries are taken by another.
    outbox = Outbox(redis, lease_seconds=2 * settings.webhook_timeout_seconds)
    sender = WebhookSender(outbox, post, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sender.stop)
    log.info("event=started")
    try:
        await sender.run()
    finally:
        await post.close()
        await disconnect(redis)
    log.info("event=stopped")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m api.webhooks.sender",
        description="Sends the webhooks of jobs. Configured by KIRAZURI_* variables.",
    )
    parser.parse_args()
    try:
        settings = Settings()
        redis_dsn(settings)
    except ValueError as exc:
        parser.error(str(exc))
    if settings.webhook_secret is None:
        parser.error("KIRAZURI_WEBHOOK_SECRET is not set: there are no webhooks to send")
    logs.configure_logging(settings)
    tracing.start_tracing("kirazuri-webhooks")
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()

"""The shapes of webhooks over HTTP: how one is asked for, and what its receiver gets."""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import httpx2
from fastapi import APIRouter, Header
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from api.http.schemas import JobView
from api.webhooks.url_policy import MAX_URL, UrlPolicy, host_of, url_problem
from model.card import Card
from model.card_request import request_type
from model.request import GenerationRequest, MetadataLevel
from worker.settings import Settings, webhook_secrets
from worker.webhook import Webhook, WebhookEventName


class WebhookRequest(BaseModel):
    """Who is to be told of a job's events; each message is signed by Standard Webhooks."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: str = Field(
        min_length=1,
        max_length=MAX_URL,
        description="Where messages are posted: https, a public address, no user name or password.",
    )
    events: list[WebhookEventName] = Field(
        default=["succeeded", "failed", "cancelled"],
        min_length=1,
        max_length=4,
        description="Which events; by default the end of the job, whatever it is. `started` comes "
        "once for every attempt.",
    )

    def stored(self, base_url: str) -> Webhook:
        """The webhook as it goes into the job's record."""
        return Webhook(
            url=self.url,
            host=host_of(httpx2.URL(self.url)).lower(),
            events=tuple(dict.fromkeys(self.events)),
            base_url=base_url,
        )


class WebhookMessage(BaseModel):
    """What a receiver gets: the job as it was at the event. Every attempt sends the same bytes."""

    model_config = ConfigDict(frozen=True)

    type: Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
    timestamp: datetime = Field(description="When the event happened.")
    data: JobView


def describe(router: APIRouter) -> None:
    """Put the messages among the webhooks of the OpenAPI document; nothing is served there."""

    @router.post(
        "jobEvent",
        operation_id="jobEvent",
        tags=["webhooks"],
        status_code=204,
        summary="An event of a job",
        responses={
            204: {"description": "Received; any 2xx will do."},
            410: {"description": "Send no more for this job."},
            "default": {"description": "Not received: the same message comes again later."},
        },
    )
    async def job_event(
        body: WebhookMessage,
        webhook_id: Annotated[str, Header(description="The same in every attempt at one event.")],
        webhook_timestamp: Annotated[str, Header(description="Of the attempt, in Unix seconds.")],
        webhook_signature: Annotated[
            str, Header(description="`v1,` and the signature; one for every secret, by spaces.")
        ],
    ) -> None:
        """Posted to the `webhook` of a request; signed by [Standard Webhooks][1].

        [1]: https://www.standardwebhooks.com
        """


def examples(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One consistent example of every shape here and of what a job shows of them."""
    asked = {"url": "https://example.org/hooks/kirazuri", "events": ["succeeded", "failed"]}
    delivery = {
        "id": f"{job['id']}-1795435203100-0",
        "event": "succeeded",
        "attempt": 1,
        "at": "2026-11-23T12:00:03.3Z",
        "seconds": 0.2,
        "status": 204,
        "error": None,
        "next_at": None,
    }
    shown = {**asked, "deliveries": [delivery]}
    return {
        "WebhookRequest": asked,
        "WebhookDelivery": delivery,
        "JobWebhook": shown,
        "WebhookMessage": {
            "type": "job.succeeded",
            "timestamp": "2026-11-23T12:00:03.1Z",
            "data": {**job, "webhook": {**asked, "deliveries": []}},
        },
    }


def webhook_of(body: Any, base_url: str) -> Webhook | None:
    """The webhook in a body of `submission_type`, as it goes into the record."""
    asked: WebhookRequest | None = body.webhook
    return asked.stored(base_url) if asked else None


def submission_type(
    card: Card, settings: Settings, lora_names: Callable[[], Collection[str]] = tuple
) -> type[GenerationRequest]:
    """The card's request with what this service can do beyond the picture."""
    rules, is_enabled = UrlPolicy.of(settings), bool(webhook_secrets(settings.webhook_secret))

    def check_url(url: str) -> str:
        problem = url_problem(url, rules)
        if problem:
            raise ValueError(f"a webhook cannot go there: {problem}")
        return url

    def check_enabled(value: Any) -> Any:
        if not is_enabled:
            raise ValueError(
                "webhooks are not enabled here: they are signed, and KIRAZURI_WEBHOOK_SECRET is "
                "not set"
            )
        return value

    url = WebhookRequest.model_fields["url"]
    own_request: Any = create_model(
        "WebhookRequest",
        __base__=WebhookRequest,
        __module__=__name__,
        __doc__=WebhookRequest.__doc__,
        url=(Annotated[str, AfterValidator(check_url)], url),
    )
    webhook: Any = (
        Annotated[own_request, BeforeValidator(check_enabled)] | None,
        Field(default=None, description="Who is to be told of the job's events."),
    )
    levels: Any = Literal[*metadata_levels(settings)]
    metadata = GenerationRequest.model_fields["metadata"]
    return create_model(
        "GenerationRequest",
        __base__=request_type(card, lora_names),
        __module__=__name__,
        webhook=webhook,
        metadata=(levels, metadata),
    )


def metadata_levels(settings: Settings) -> list[MetadataLevel]:
    """What may be asked for of `metadata` here."""
    return [
        level for level in get_args(MetadataLevel) if level != "none" or not settings.require_mark
    ]

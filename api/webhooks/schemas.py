"""Webhooks in requests and messages, and the request type that includes them."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import httpx2
from fastapi import APIRouter, Header
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from api.http.job_schemas import JobView
from api.webhooks.url_policy import MAX_URL, UrlPolicy, host_of, url_problem
from model.card import Card
from model.card_request import request_type
from model.request import GenerationRequest, MetadataLevel
from worker.setting_values import webhook_secrets
from worker.settings import Settings
from worker.webhook import Webhook, WebhookEventName


class WebhookRequest(BaseModel):
    """A URL that gets a job's events; messages are signed according to Standard Webhooks."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: str = Field(
        min_length=1,
        max_length=MAX_URL,
        description="URL of the receiver: https, a public address, no user name or password.",
    )
    events: list[WebhookEventName] = Field(
        default=["succeeded", "failed", "cancelled"],
        min_length=1,
        max_length=4,
        description="Events to send; by default every end of the job. `started` is sent for every "
        "attempt.",
    )

    def stored(self, base_url: str) -> Webhook:
        """The webhook for the job's record."""
        return Webhook(
            url=self.url,
            host=host_of(httpx2.URL(self.url)).lower(),
            events=tuple(dict.fromkeys(self.events)),
            base_url=base_url,
        )


def add_to_openapi(router: APIRouter) -> None:
    """Describe the messages in the `webhooks` section of the OpenAPI document; adds no route."""

    @router.post(
        "jobEvent",
        operation_id="jobEvent",
        tags=["jobs"],
        status_code=204,
        summary="An event of a job",
        responses={
            204: {"description": "Received; any 2xx status counts."},
            410: {"description": "Send no more messages for this job."},
            "default": {"description": "Not received; the same message is sent again later."},
        },
    )
    async def job_event(
        body: WebhookMessage,
        webhook_id: Annotated[str, Header(description="Message id, the same for every attempt.")],
        webhook_timestamp: Annotated[str, Header(description="Unix time of the attempt.")],
        webhook_signature: Annotated[
            str, Header(description="`v1,` and a signature; one per secret, separated by spaces.")
        ],
    ) -> None:
        """Posted to the `webhook` of a request; signed according to [Standard Webhooks][1].

        [1]: https://www.standardwebhooks.com
        """


def webhook_from(body: Any, base_url: str) -> Webhook | None:
    """The webhook of a request body, for the job's record."""
    webhook: WebhookRequest | None = body.webhook
    return webhook.stored(base_url) if webhook else None


def submission_type(
    card: Card,
    settings: Settings,
    lora_names: Callable[[], Collection[str]] = tuple,
    refused_loras: Callable[[], Mapping[str, str]] = dict,
) -> type[GenerationRequest]:
    """The request model of this service: the card's, with `webhook` and the allowed `metadata`."""
    policy = UrlPolicy.from_settings(settings)
    is_enabled = bool(webhook_secrets(settings.webhook_secret))

    def check_url(url: str) -> str:
        problem = url_problem(url, policy)
        if problem:
            raise ValueError(f"this URL is not allowed: {problem}")
        return url

    def check_enabled(value: Any) -> Any:
        if not is_enabled:
            raise ValueError("webhooks are disabled, because KIRAZURI_WEBHOOK_SECRET is not set")
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
        Field(default=None, description="Webhook that gets the job's events."),
    )
    levels: Any = Literal[*metadata_levels(settings)]
    metadata = GenerationRequest.model_fields["metadata"]
    return create_model(
        "GenerationRequest",
        __base__=request_type(card, lora_names, refused_loras),
        __module__=__name__,
        webhook=webhook,
        metadata=(levels, metadata),
    )


def metadata_levels(settings: Settings) -> list[MetadataLevel]:
    """The values of `metadata` that this service accepts."""
    return [
        level for level in get_args(MetadataLevel) if level != "none" or not settings.require_mark
    ]


class WebhookMessage(BaseModel):
    """The body of a message: the job at the time of the event. Retries send the same bytes."""

    model_config = ConfigDict(frozen=True)

    type: Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
    timestamp: datetime = Field(description="When the event happened.")
    data: JobView

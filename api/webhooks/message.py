"""The body and the signed headers of a webhook message."""

from datetime import UTC, datetime

from standardwebhooks import Webhook as Signer

from api.http.job_schemas import job_view
from api.webhooks.schemas import WebhookMessage
from worker.queue.outbox import Delivery


def signed_headers(delivery_id: str, body: str, signers: tuple[Signer, ...]) -> dict[str, str]:
    """The headers of Standard Webhooks, with one signature per secret."""
    now = datetime.now(UTC)
    signatures = [signer.sign(delivery_id, now, body) for signer in signers]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def message_body(delivery: Delivery) -> str:
    """The JSON body, which is the same for every attempt.

    Raises:
        ValueError: another release wrote the job's record, and this one cannot read it.
    """
    base_url = delivery.webhook().base_url
    return WebhookMessage.model_validate(
        {
            "type": f"job.{delivery.event}",
            "timestamp": delivery.happened_at,
            "data": job_view(delivery.job(), base_url),
        }
    ).model_dump_json()

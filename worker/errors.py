"""Errors of the queue and the image store; `api.http` maps them to HTTP problems."""

import time

DAY_SECONDS = 86_400


class WorkerError(Exception):
    """Base class of all errors of this package."""


class JobNotFound(WorkerError):
    """No job has this id."""


class JobExpired(WorkerError):
    """The job's record was deleted because its time to live is over."""


class JobAlreadyFinished(WorkerError):
    """The job has ended and cannot be cancelled."""


class JobNotSucceeded(WorkerError):
    """The job has no images to compare with: it waits, runs, failed or was cancelled."""


class QueueFull(WorkerError):
    """The queue has reached its limit."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(f"the queue has reached its limit of {limit} jobs")
        self.limit = limit
        self.retry_after = retry_after


class KeyLimitReached(WorkerError):
    """An API key reached a limit; the client may try again after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RateLimited(KeyLimitReached):
    """The key submits too often."""

    def __init__(self, rate: str, retry_after: int) -> None:
        super().__init__(f"this key has reached its rate limit of {rate}", retry_after)


class TooManyJobs(KeyLimitReached):
    """Too many jobs of the key wait or run."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(
            f"this key has reached its limit of {limit} waiting or running jobs", retry_after
        )


class QuotaSpent(KeyLimitReached):
    """The request costs more than is left of the key's daily quota."""

    def __init__(self, quota: float, cost: float) -> None:
        left_today = DAY_SECONDS - int(time.time()) % DAY_SECONDS
        super().__init__(
            f"the request costs {cost:.4g} megapixel-steps, more than is left today of this key's "
            f"quota of {quota:g}; it is renewed at midnight UTC",
            left_today,
        )


class IdempotencyConflict(WorkerError):
    """The idempotency key was used before with a different request."""


class QueueUnavailable(WorkerError):
    """Redis does not answer, or refuses to write."""


class RedisLoading(QueueUnavailable):
    """Redis has started and is loading its data."""


class RedisUnfit(QueueUnavailable):
    """Redis works, but is full, may lose jobs or refuses this service; for clients too."""


class ImageNotFound(WorkerError):
    """No image of this name exists."""


class ImageExpired(WorkerError):
    """The image was deleted because its job expired."""


class ImageDeleted(ImageExpired):
    """The image's owner deleted it."""


class ImageLost(ImageExpired):
    """The image's file was removed or changed behind the service's back."""


class StoreError(WorkerError):
    """The image store cannot read or write now."""

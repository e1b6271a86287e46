"""What the queue and the store refuse; the API translates these to HTTP in one table."""

import time

DAY_SECONDS = 86_400


class WorkerError(Exception):
    """Anything the worker package refuses or cannot do."""


class JobNotFound(WorkerError):
    """No job ever had this id."""


class JobExpired(WorkerError):
    """The job is older than the time results are kept."""


class JobAlreadyFinished(WorkerError):
    """The job reached a terminal state and cannot be changed."""


class JobNotSucceeded(WorkerError):
    """The job waits, runs, failed or was cancelled: there is nothing to compare with."""


class QueueFull(WorkerError):
    """The queue holds as many jobs as the operator allows."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(f"the queue holds {limit} jobs, its limit")
        self.limit = limit
        self.retry_after = retry_after


class KeyLimitReached(WorkerError):
    """The key allows no more just now; it may in `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class RateLimited(KeyLimitReached):
    """The key has submitted as often as it may in a span of time."""

    def __init__(self, rate: str, retry_after: int) -> None:
        super().__init__(f"this key may submit {rate}", retry_after)


class TooManyJobs(KeyLimitReached):
    """As many jobs of the key wait or run as it allows."""

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(f"{limit} jobs of this key wait or run, its limit", retry_after)


class QuotaSpent(KeyLimitReached):
    """What is left of the key's work for today is less than the request costs."""

    def __init__(self, quota: float, cost: float) -> None:
        left_today = DAY_SECONDS - int(time.time()) % DAY_SECONDS
        super().__init__(
            f"the request costs {cost:.4g} megapixel-steps; of the {quota:g} that this key has a "
            "day, fewer are left until midnight UTC",
            left_today,
        )


class IdempotencyConflict(WorkerError):
    """The idempotency key was used before with another body."""


class QueueUnavailable(WorkerError):
    """Redis does not answer, or refuses to write."""


class ImageNotFound(WorkerError):
    """No image of this name is stored."""


class ImageExpired(WorkerError):
    """The image of this name was removed when its job expired."""


class StoreError(WorkerError):
    """The image store cannot write or read just now."""

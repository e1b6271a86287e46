"""What the queue and the store refuse; the API translates these to HTTP in one table."""


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

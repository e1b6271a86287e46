"""Exceptions of the HTTP API; `problem_types` maps each one to a problem type."""

from collections.abc import Sequence

from fastapi import HTTPException

from api.http.problem import FieldError
from worker import errors as worker_errors
from worker.job import Job


class BodyTooLarge(HTTPException):
    """The body has more than `limit` bytes.

    An HTTPException, because FastAPI turns all other errors while reading a body into a 400.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes")


class _CodingRefused(HTTPException):
    def __str__(self) -> str:
        return f"{self.detail}"


class UnsupportedCoding(_CodingRefused):
    """The body has a content coding that is not decoded here."""

    def __init__(self, coding: str) -> None:
        reason = f"Content-Encoding is {coding}; send gzip, deflate, or the body as it is"
        super().__init__(415, reason)


class BrokenCoding(_CodingRefused):
    """The body is not what its content coding says."""

    def __init__(self, reason: str) -> None:
        super().__init__(400, reason)


class BodiesTooLarge(HTTPException):
    """The bodies of all requests in progress have more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        detail = f"the bodies of other requests leave no room: together they may have {limit} bytes"
        super().__init__(503, detail, {"Retry-After": "1"})


class TooManyRequests(Exception):
    """A key has `limit` requests in progress, waiting calls and event streams included."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"this key already has {limit} requests in progress, its limit")


class BodyRefused(HTTPException):
    """The body is refused before it is parsed: 422 with the limit that it exceeds, or 400.

    An HTTPException, as BodyTooLarge.
    """

    def __init__(self, status: int, reason: str, limit: int | None = None) -> None:
        super().__init__(status, reason)
        self.limit = limit


class UnsupportedMediaType(Exception):
    """The route does not accept the body's content type."""


class UnreadableImage(Exception):
    """The body contains no readable image."""


class Unauthorized(Exception):
    """The request needs an API key and has none, or an unknown or revoked one.

    `is_link` says that it has the token of a signed URL, which is not valid for it.
    """

    def __init__(
        self, *, is_key_wrong: bool, is_basic: bool = False, is_link: bool = False
    ) -> None:
        reason = "unknown API key" if is_key_wrong else "an API key is required"
        link = "; a signed URL works only as it was made, until it expires, and for reading"
        super().__init__(
            f"{reason}; send one as Authorization: Bearer KEY{link if is_link else ''}"
        )
        bearer = 'Bearer realm="kirazuri"' + (', error="invalid_token"' if is_key_wrong else "")
        self.challenge = 'Basic realm="kirazuri", ' + bearer if is_basic else bearer


class MalformedForm(Exception):
    """The body is declared as a form and cannot be parsed as one."""


class UnknownPath(HTTPException):
    """There is nothing at the path; answered as paths without a route are."""

    def __init__(self) -> None:
        super().__init__(404)


class UnknownModel(Exception):
    """This service has no model of that name."""


class JobUnfinished(Exception):
    """A synchronous call timed out before its job finished; the job continues."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is still {job.status}; GET /jobs/{job.id} has its images")
        self.job = job


class JobUnsuccessful(Exception):
    """The job of a synchronous call failed or was cancelled."""

    def __init__(self, job: Job) -> None:
        reason = job.error.detail or job.error.title if job.error else "it was cancelled"
        super().__init__(f"job {job.id} {job.status}: {reason}")
        self.job = job


class JobImagesUnavailable(worker_errors.StoreError):
    """The job of a synchronous call succeeded, but its images cannot be read at the moment."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"the images of job {job.id} cannot be read")
        self.job = job


class KeyForbids(Exception):
    """The limits of the API key forbid the request; `errors` names the fields."""

    def __init__(self, reason: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(reason)
        self.errors = errors


class RangeNotSatisfiable(Exception):
    """The requested byte range is outside a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range is outside the file, which has {size} bytes")
        self.size = size


class UnknownProblem(Exception):
    """No problem type has this code."""

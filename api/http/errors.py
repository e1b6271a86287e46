"""The one table from exception to (status, problem type, title), and the answers made from it.

Every error leaves as an RFC 9457 problem, or in the shape of the surface that it happened on; no
other module of this package knows HTTPException.
"""

import itertools
import logging
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as RefusedByFramework
from starlette.routing import Match, Mount

from api.http.field_errors import field_errors, printable
from api.http.problem import ErrorRenderer, ProblemResponse, ProblemType
from api.http.schemas import FieldError, Problem, ProblemExplanation
from model.errors import PolicyBlocked
from worker import errors as worker_errors
from worker.job import Job
from worker.job_errors import job_error

_RETRY_AFTER_SECONDS = 5
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

log = logging.getLogger(__name__)


class BodyTooLarge(HTTPException):
    """More bytes than `limit`; an HTTPException, since reading a body lets only those through."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the body is larger than {limit} bytes")


class UnsupportedMediaType(Exception):
    """The body is not announced as what the route reads."""


class UnreadableImage(Exception):
    """The body holds no image that can be read."""


class Unauthorized(Exception):
    """A key is needed, and none came, or one that is not known (any more)."""

    def __init__(self, *, is_key_wrong: bool, is_basic: bool = False) -> None:
        reason = "the API key is not known" if is_key_wrong else "an API key is needed"
        super().__init__(f"{reason}; send one as Authorization: Bearer KEY")
        bearer = 'Bearer realm="kirazuri"' + (', error="invalid_token"' if is_key_wrong else "")
        self.challenge = 'Basic realm="kirazuri", ' + bearer if is_basic else bearer


class MalformedForm(Exception):
    """The body is announced as a form and cannot be read as one."""


class UnknownModel(Exception):
    """No model of this service has the name."""


class JobUnfinished(Exception):
    """A call that answers with pictures waited as long as it may; its job goes on."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is still {job.status}; GET /jobs/{job.id} has its pictures")
        self.job = job


class JobUnsuccessful(Exception):
    """The job of a call that answers with pictures failed or was cancelled."""

    def __init__(self, job: Job) -> None:
        reason = job.error.detail or job.error.title if job.error else "it was cancelled"
        super().__init__(f"job {job.id} {job.status}: {reason}")
        self.job = job


class JobImagesUnavailable(worker_errors.StoreError):
    """The pictures of a call that answers with them are stored, but cannot be read just now."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"the pictures of job {job.id} cannot be read")
        self.job = job


class KeyForbids(Exception):
    """The key does not allow what is asked for; `errors` names the fields."""

    def __init__(self, reason: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(reason)
        self.errors = errors


class RangeNotSatisfiable(Exception):
    """A byte range that lies outside a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside the file, which has {size} bytes")
        self.size = size


INTERNAL: Final = ProblemType(
    500,
    "internal",
    "Internal error",
    "The service failed at something that is not the client's doing. The log has the details "
    "under the request id in `instance`.",
)
VALIDATION: Final = ProblemType(
    422,
    "validation_failed",
    "The request is not valid",
    "`errors` has one entry for every wrong field: a JSON pointer, the reason and the limit. "
    "GET /capabilities lists what is allowed.",
)
MALFORMED: Final = ProblemType(
    400, "malformed_json", "The body is not JSON", "Send one JSON object in UTF-8."
)
NOT_READY: Final = ProblemType(
    503,
    "not_ready",
    "Not ready",
    "`reasons` says what is missing: Redis, the image store, or a worker with a loaded model.",
)


NOT_HTTP: Final = ProblemType(
    400, "not_http", "Not a request", "The bytes are no HTTP/1.1 request; the connection is closed."
)
FOREIGN_PAGE: Final = ProblemType(
    403,
    "foreign_page",
    "A page of another origin asks",
    "A browser says that a web page of another origin sent this. The operator can name the origin "
    "in KIRAZURI_CORS_ORIGINS.",
)
TOO_SLOW: Final = ProblemType(
    408,
    "request_too_slow",
    "The request takes too long to arrive",
    "Line and headers, and then the body, have a time each to arrive; the connection is closed.",
)
WRONG_HOST: Final = ProblemType(
    421,
    "wrong_host",
    "The service does not go by this name",
    "The host that the request names is none of KIRAZURI_ALLOWED_HOSTS.",
)
HEAD_TOO_LARGE: Final = ProblemType(
    431,
    "head_too_large",
    "Line and headers are too large",
    "Line and headers of a request have more bytes than KIRAZURI_MAX_HEAD_BYTES allows.",
)
TOO_MANY_CONNECTIONS: Final = ProblemType(
    503,
    "too_many_connections",
    "Too many connections",
    "As many connections are open as the operator allows. Try again after `Retry-After` seconds.",
)


class UnknownProblem(Exception):
    """No problem type has this code."""


TABLE: Final[dict[type[Exception], ProblemType]] = {
    PolicyBlocked: ProblemType(
        403,
        "policy_blocked",
        "The policy refuses the request",
        "`rule` names the rule: one of the service's own, one of its operator's, or `max_rating`, "
        "the highest rating that the key may ask for. The same request is refused every time.",
    ),
    Unauthorized: ProblemType(
        401,
        "unauthorized",
        "An API key is needed",
        "Send a key in the header `Authorization: Bearer KEY`, or as user or password of Basic. It "
        "may have been revoked. The operator makes keys with `kirazuri keys add`.",
    ),
    worker_errors.JobNotFound: ProblemType(
        404, "job_not_found", "No such job", "No job ever had this id."
    ),
    worker_errors.JobExpired: ProblemType(
        410,
        "job_expired",
        "The job has expired",
        "Jobs and their images are removed together after the time results are kept.",
    ),
    worker_errors.JobAlreadyFinished: ProblemType(
        409,
        "job_already_finished",
        "The job has already finished",
        "A job that succeeded, failed or was cancelled stays so.",
    ),
    worker_errors.JobNotSucceeded: ProblemType(
        409,
        "job_not_succeeded",
        "The job has no pictures to compare with",
        "Only a job that succeeded can be replayed. To try a failed or cancelled one again, submit "
        "its request anew.",
    ),
    worker_errors.QueueFull: ProblemType(
        429,
        "queue_full",
        "The queue is full",
        "As many jobs are waiting as the operator allows. Try again after `Retry-After` seconds.",
    ),
    KeyForbids: ProblemType(
        403,
        "key_forbids",
        "The key does not allow this",
        "The key is limited to some LoRAs or resolutions, `errors` names the field and what it may "
        "be, or may submit nothing at all.",
    ),
    worker_errors.RateLimited: ProblemType(
        429,
        "rate_limited",
        "Too many submissions",
        "The key has submitted as often as it may. Try again after `Retry-After` seconds; "
        "`RateLimit` tells how many are left.",
    ),
    worker_errors.TooManyJobs: ProblemType(
        429,
        "too_many_jobs",
        "Too many unfinished jobs",
        "As many jobs of this key wait or run as it allows. Wait for one to end, or cancel one.",
    ),
    worker_errors.QuotaSpent: ProblemType(
        429,
        "quota_spent",
        "The day's quota is spent",
        "The request costs more megapixel-steps than the key has left until midnight UTC. A dry "
        "run tells what a request costs.",
    ),
    worker_errors.IdempotencyConflict: ProblemType(
        422,
        "idempotency_conflict",
        "The idempotency key was used with another body",
        "An Idempotency-Key stands for one request body. Use a new key for a new request.",
    ),
    worker_errors.QueueUnavailable: ProblemType(
        503,
        "queue_unavailable",
        "The queue does not answer",
        "Redis cannot be reached or refuses to write. If this was the answer to a submission, "
        "repeat it with the same Idempotency-Key: it will not run twice.",
    ),
    worker_errors.ImageNotFound: ProblemType(
        404, "image_not_found", "No such image", "No image of this name is stored."
    ),
    worker_errors.ImageExpired: ProblemType(
        410,
        "image_expired",
        "The image has expired",
        "Images are removed together with their job after the time results are kept.",
    ),
    worker_errors.StoreError: ProblemType(
        503,
        "store_unavailable",
        "The image store does not answer",
        "Images can neither be read nor written just now.",
    ),
    JobUnfinished: ProblemType(
        504,
        "job_unfinished",
        "The job is not finished yet",
        "The call waited as long as it may. The job goes on: `Location` is where it and its "
        "pictures are fetched.",
    ),
    JobUnsuccessful: ProblemType(
        409,
        "job_cancelled",
        "The job was cancelled",
        "Somebody cancelled it, or its time was over.",
    ),
    MalformedForm: ProblemType(
        400, "malformed_form", "The form cannot be read", "Send a form as browsers make them."
    ),
    UnknownModel: ProblemType(
        404,
        "model_not_found",
        "No such model",
        "`model` is neither the card's name nor one of `KIRAZURI_OPENAI_MODELS`.",
    ),
    UnknownProblem: ProblemType(
        404, "problem_not_found", "No such problem type", "The API's document lists all types."
    ),
    UnsupportedMediaType: ProblemType(
        415,
        "unsupported_media_type",
        "The body is not announced as what is read here",
        "Send `Content-Type: application/json`, or `multipart/form-data` where files are sent.",
    ),
    UnreadableImage: ProblemType(
        422,
        "unreadable_image",
        "The image cannot be read",
        "Send one PNG, JPEG, WebP or AVIF file of at most 4096x4096 pixels, as the body itself or "
        "as the first file of a form.",
    ),
    RangeNotSatisfiable: ProblemType(
        416,
        "range_not_satisfiable",
        "The range lies outside the file",
        "`Content-Range` of the answer has the size of the file.",
    ),
}

_BY_STATUS: Final[dict[int, ProblemType]] = {
    400: MALFORMED,
    404: ProblemType(404, "not_found", "No such path", "/docs lists all paths."),
    405: ProblemType(
        405,
        "method_not_allowed",
        "The path does not know this method",
        "The `Allow` header of the answer lists the methods it knows.",
    ),
    413: ProblemType(
        413, "body_too_large", "The body is too large", "`detail` names the limit in bytes."
    ),
}
"""What the framework itself refuses."""

_WHY_JOBS_FAIL: Final[dict[str, str]] = {
    "bad_prompt": "The prompt has a weight or nesting that cannot be read; see `detail`.",
    "input_missing": "init_image or mask is no longer stored; submit the request again with it.",
    "non_finite": "Latents or pixels were NaN or infinite; try another seed or a lower cfg_scale.",
    "lora_missing": "The worker's folder has no LoRA of that name; GET /capabilities lists them.",
    "lora_changed": "The LoRA's file was replaced after the request was accepted; submit it again.",
    "lora_unusable": "The LoRA cannot be read, or was not made for this checkpoint's architecture; "
    "`detail` names the keys that match nothing.",
    "engine_error": "The engine failed at this request; the worker's log has the details.",
    "out_of_memory": "No worker's device had room for a single picture; ask for a smaller one.",
    "encoding": "The picture was made but not written in its format; try another image_format.",
    "output_refused": "The operator looks at pictures before they are given out, and this one was "
    "refused; `detail` is the reason.",
    "filter_broken": "What looks at pictures before they are given out has failed, so this one is "
    "not given out; the worker's log has the details.",
    "signing": "The picture was made but could not be signed, so it was not stored; the operator's "
    "certificate may have expired, and the worker's log has the reason.",
    "storage": "The picture was made but could not be stored; submit the request again.",
    "unreadable": "The job's record cannot be read by this release; submit the request again.",
    "worker_lost": "Every worker that tried died on the way; the request may need too much memory.",
}
"""These stand in a job's `error`, not in an answer's body."""


def _job_problem(code: str, explanation: str) -> ProblemType:
    problem = job_error(code, "")
    return ProblemType(problem.status, code, problem.title, explanation)


PROBLEM_TYPES: Final[dict[str, ProblemType]] = {
    kind.code: kind
    for kind in (
        *TABLE.values(),
        *_BY_STATUS.values(),
        VALIDATION,
        NOT_READY,
        INTERNAL,
        NOT_HTTP,
        FOREIGN_PAGE,
        TOO_SLOW,
        WRONG_HOST,
        HEAD_TOO_LARGE,
        TOO_MANY_CONNECTIONS,
        *itertools.starmap(_job_problem, _WHY_JOBS_FAIL.items()),
    )
}


def explain(code: str) -> ProblemExplanation:
    """What the problem type `code` means.

    Raises:
        UnknownProblem: there is no such type.
    """
    kind = PROBLEM_TYPES.get(code)
    if kind is None:
        raise UnknownProblem(f"no problem type {printable(code)!r}")
    return ProblemExplanation(
        type=kind.path,
        code=kind.code,
        title=kind.title,
        status=kind.status,
        explanation=kind.explanation,
    )


def _headers(exc: Exception) -> dict[str, str]:
    match exc:
        case JobUnsuccessful(job=job):
            return job_headers(job)
        case JobUnfinished(job=job):
            return {"Retry-After": "1", **job_headers(job)}
        case JobImagesUnavailable(job=job):
            return {"Retry-After": str(_RETRY_AFTER_SECONDS), **job_headers(job)}
        case (
            worker_errors.QueueFull(retry_after=seconds)
            | worker_errors.KeyLimitReached(retry_after=seconds)
        ):
            return {"Retry-After": str(seconds)}
        case worker_errors.QueueUnavailable() | worker_errors.StoreError():
            return {"Retry-After": str(_RETRY_AFTER_SECONDS)}
        case Unauthorized(challenge=challenge):
            return {"WWW-Authenticate": challenge}
        case RangeNotSatisfiable(size=size):
            return {"Content-Range": f"bytes */{size}"}
    return {}


def job_headers(job: Job) -> dict[str, str]:
    """Where the job of a call that answers with pictures is found."""
    return {"Location": f"/jobs/{job.id}", "X-Job-Id": job.id}


def _kind(exc: Exception) -> ProblemType:
    if isinstance(exc, JobUnsuccessful) and exc.job.error:
        error = exc.job.error
        return ProblemType(error.status, error.code, error.title, error.detail)
    return next((TABLE[base] for base in type(exc).__mro__ if base in TABLE), INTERNAL)


def refusal_of(exc: Exception, instance: str) -> ProblemResponse:
    """What an exception of the table tells the client, which the log gets in full."""
    kind = _kind(exc)
    if kind.status >= 500 and not isinstance(exc, JobUnfinished | JobUnsuccessful):
        # Messages of these name hosts and paths, which are the operator's business alone.
        log.error("request=%s problem=%s", instance, kind.code, exc_info=exc)
        detail = kind.explanation
    else:
        detail = printable(str(exc), limit=500)
    rule = exc.rule if isinstance(exc, PolicyBlocked) else None
    wrong = exc.errors if isinstance(exc, KeyForbids) else ()
    return ProblemResponse(kind, detail, instance, wrong, headers=_headers(exc), rule=rule)


def _answer(request: Request, refusal: ProblemResponse) -> Response:
    """The refusal in its surface's shape; the answer is counted as this problem."""
    request.state.problem = refusal.kind.code
    shape: ErrorRenderer = request.state.error_shape
    return shape(refusal)


async def refuse(request: Request, exc: Exception) -> Response:
    """What an exception of the table tells the client."""
    return _answer(request, refusal_of(exc, request.state.request_id))


async def _refuse_as_framework(request: Request, exc: RefusedByFramework) -> Response:
    """What the router and the body's reader refuse."""
    kind = _BY_STATUS.get(exc.status_code, INTERNAL)
    path = printable(request.scope["path"])
    details = {
        400: "the body cannot be read as JSON",
        404: f"nothing is at {path}",
        405: f"{request.method} is not possible at {path}",
    }
    detail = details.get(exc.status_code, str(exc.detail))
    instance: str = request.state.request_id
    headers = _allow(request) if exc.status_code == 405 else exc.headers or {}
    return _answer(request, ProblemResponse(kind, detail, instance, headers=headers))


def _allow(request: Request) -> dict[str, str]:
    """All methods that the path knows (RFC 9110, 10.2.1); the router names those of one route."""
    known = [
        method
        for method in _METHODS
        for route in request.app.routes
        if not isinstance(route, Mount)
        and route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]
    # Files below a mounted folder can be read.
    return {"Allow": ", ".join(dict.fromkeys(known)) or "GET, HEAD"}


async def _refuse_fields(request: Request, exc: RequestValidationError) -> Response:
    """One entry for every wrong field; a body that is no JSON at all has no fields."""
    errors, instance = exc.errors(), request.state.request_id
    for error in errors:
        if error["type"] == "json_invalid":
            reason = f"{error['ctx']['error']} at character {error['loc'][-1]}"
            return _answer(request, ProblemResponse(MALFORMED, reason, instance))
    found = field_errors(errors)
    detail = "1 field is wrong" if len(errors) == 1 else f"{len(errors)} fields are wrong"
    if len(found) < len(errors):
        detail = f"{detail}; the first {len(found)} are listed"
    return _answer(request, ProblemResponse(VALIDATION, detail, instance, found))


def install(app: FastAPI) -> None:
    """Make `app` answer with refusals, in the shape that `request.state.error_shape` gives them."""
    for kind in TABLE:
        app.exception_handler(kind)(refuse)
    app.exception_handler(RefusedByFramework)(_refuse_as_framework)
    app.exception_handler(RequestValidationError)(_refuse_fields)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems a route answers with, for its OpenAPI description."""
    return {status: {"model": Problem} for status in (*statuses, 500)}

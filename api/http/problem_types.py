"""The table of problem types: status, code, title and explanation of every error."""

import itertools
from typing import Final

from api.http import errors
from api.http.field_errors import printable
from api.http.problem import ProblemExplanation, ProblemType
from model.errors import PolicyBlocked
from worker import errors as worker_errors
from worker.job_errors import job_error

INTERNAL: Final = ProblemType(
    500,
    "internal",
    "Internal error",
    "An unexpected error in the service. The log has the details under the request id in "
    "`instance`.",
)
VALIDATION_FAILED: Final = ProblemType(
    422,
    "validation_failed",
    "Invalid request",
    "`errors` has one entry per wrong field: a JSON pointer, the reason and the limit. "
    "GET /capabilities lists the allowed values.",
)
MALFORMED_JSON: Final = ProblemType(
    400, "malformed_json", "Malformed JSON", "The body must be one JSON object in UTF-8."
)
NOT_READY: Final = ProblemType(
    503,
    "not_ready",
    "Not ready",
    "`reasons` names what is missing: Redis, the image store, or a worker with a loaded model.",
)
NOT_HTTP: Final = ProblemType(
    400,
    "not_http",
    "Malformed HTTP request",
    "The bytes are not a valid HTTP/1.1 request. The server closes the connection.",
)
CROSS_ORIGIN: Final = ProblemType(
    403,
    "foreign_page",
    "Cross-origin request refused",
    "According to the browser, a web page of another origin sent this request. The operator can "
    "allow the origin with KIRAZURI_CORS_ORIGINS.",
)
REQUEST_TOO_SLOW: Final = ProblemType(
    408,
    "request_too_slow",
    "Request timeout",
    "The head or the body of the request did not arrive in time. The server closes the connection.",
)
WRONG_HOST: Final = ProblemType(
    421,
    "wrong_host",
    "Unknown host name",
    "The `Host` header is not one of KIRAZURI_ALLOWED_HOSTS.",
)
HEAD_TOO_LARGE: Final = ProblemType(
    431,
    "head_too_large",
    "Request head too large",
    "The request line and headers are larger than KIRAZURI_MAX_HEAD_BYTES allows.",
)
BODY_TOO_LARGE: Final = ProblemType(
    413,
    "body_too_large",
    "Request body too large",
    "`detail` shows the limit in bytes. The sizes of chunks and their extensions count too.",
)
TOO_MANY_CONNECTIONS: Final = ProblemType(
    503,
    "too_many_connections",
    "Too many connections",
    "The server has reached its limit of open connections. Try again after `Retry-After` seconds.",
)

PROBLEM_BY_EXCEPTION: Final[dict[type[Exception], ProblemType]] = {
    PolicyBlocked: ProblemType(
        403,
        "policy_blocked",
        "Request blocked by the policy",
        "`rule` names the policy rule: a built-in one, one of the operator's, or `max_rating`, the "
        "highest rating that the key allows. Repeating the same request does not help.",
    ),
    errors.Unauthorized: ProblemType(
        401,
        "unauthorized",
        "API key required",
        "Send a valid key as `Authorization: Bearer KEY`, or as the user or password of Basic "
        "authentication. A revoked key no longer works. The operator creates keys with "
        "`kirazuri keys add`.",
    ),
    worker_errors.JobNotFound: ProblemType(
        404, "job_not_found", "Job not found", "No job has this id."
    ),
    worker_errors.JobExpired: ProblemType(
        410,
        "job_expired",
        "Job expired",
        "The service keeps a job and its images for a limited time and then removes both.",
    ),
    worker_errors.JobAlreadyFinished: ProblemType(
        409,
        "job_already_finished",
        "Job already finished",
        "The job has succeeded, failed or been cancelled; that cannot change any more.",
    ),
    worker_errors.JobNotSucceeded: ProblemType(
        409,
        "job_not_succeeded",
        "Job did not succeed",
        "Only a succeeded job can be replayed, because a replay compares images. To retry a failed "
        "or cancelled job, submit its request again.",
    ),
    worker_errors.QueueFull: ProblemType(
        429,
        "queue_full",
        "Queue full",
        "The queue has reached its limit of waiting jobs. Try again after `Retry-After` seconds.",
    ),
    errors.KeyForbids: ProblemType(
        403,
        "key_forbids",
        "Not allowed for this API key",
        "The key allows only certain LoRAs or resolutions, or no submissions at all. `errors` "
        "names the fields and the allowed values.",
    ),
    worker_errors.RateLimited: ProblemType(
        429,
        "rate_limited",
        "Rate limit exceeded",
        "The key has used up its submissions for now. Try again after `Retry-After` seconds; the "
        "`RateLimit` header shows how many are left.",
    ),
    errors.TooManyRequests: ProblemType(
        429,
        "too_many_requests",
        "Too many requests in progress",
        "The key has reached its limit of requests at once; waiting calls and event streams count. "
        "Close a stream, or try again after `Retry-After` seconds.",
    ),
    worker_errors.TooManyJobs: ProblemType(
        429,
        "too_many_jobs",
        "Too many unfinished jobs",
        "The key has reached its limit of waiting and running jobs. Wait for one to finish, or "
        "cancel one.",
    ),
    worker_errors.QuotaSpent: ProblemType(
        429,
        "quota_spent",
        "Daily quota exceeded",
        "The request costs more megapixel-steps than the key has left until midnight UTC. A dry "
        "run shows the cost of a request.",
    ),
    worker_errors.IdempotencyConflict: ProblemType(
        422,
        "idempotency_conflict",
        "Idempotency key already used",
        "The same Idempotency-Key was sent with a different body. Use a new key for each request.",
    ),
    worker_errors.QueueUnavailable: ProblemType(
        503,
        "queue_unavailable",
        "Queue unavailable",
        "Redis cannot be reached, refuses to write, is nearly full or may lose jobs. If this "
        "answers a submission, repeat it with the same Idempotency-Key: the job runs only once.",
    ),
    worker_errors.ImageNotFound: ProblemType(
        404, "image_not_found", "Image not found", "No stored image has this name."
    ),
    worker_errors.ImageExpired: ProblemType(
        410,
        "image_expired",
        "Image expired",
        "The service keeps a job and its images for a limited time and then removes both.",
    ),
    worker_errors.ImageDeleted: ProblemType(
        410,
        "image_deleted",
        "Image deleted",
        "The image's owner deleted it. Replay the job to make the image again.",
    ),
    worker_errors.ImageLost: ProblemType(
        410,
        "image_lost",
        "Image lost",
        "The image's file was removed or changed in the store, not by this service. Replay the job "
        "to make the image again.",
    ),
    worker_errors.StoreError: ProblemType(
        503,
        "store_unavailable",
        "Image store unavailable",
        "Images cannot be read or written at the moment.",
    ),
    errors.JobUnfinished: ProblemType(
        504,
        "job_unfinished",
        "Job not finished in time",
        "The call timed out, but the job continues. Fetch the job and its images at `Location`.",
    ),
    errors.JobUnsuccessful: ProblemType(
        409,
        "job_cancelled",
        "Job cancelled",
        "The job was cancelled by a client, or its deadline passed.",
    ),
    errors.MalformedForm: ProblemType(
        400, "malformed_form", "Malformed form", "The body must be a valid multipart form."
    ),
    errors.UnknownModel: ProblemType(
        404,
        "model_not_found",
        "Model not found",
        "`model` is neither the name of the card nor one of `KIRAZURI_OPENAI_MODELS`.",
    ),
    errors.UnknownProblem: ProblemType(
        404,
        "problem_not_found",
        "Problem type not found",
        "The API documentation lists all problem types.",
    ),
    errors.UnsupportedMediaType: ProblemType(
        415,
        "unsupported_media_type",
        "Unsupported content type",
        "Send `Content-Type: application/json`, or `multipart/form-data` to upload files.",
    ),
    errors.UnsupportedCoding: ProblemType(
        415,
        "unsupported_coding",
        "Unsupported content coding",
        "Send the body as it is, or with `Content-Encoding: gzip` or `deflate`.",
    ),
    errors.BrokenCoding: ProblemType(
        400,
        "broken_coding",
        "Malformed content coding",
        "The body is not what its `Content-Encoding` says, or its end is missing.",
    ),
    errors.UnreadableImage: ProblemType(
        422,
        "unreadable_image",
        "Unreadable image",
        "Send one PNG, JPEG, WebP or AVIF file of at most 4096x4096 pixels, with no side more than "
        "100 times the other, as the body or as the first file of a form.",
    ),
    errors.RangeNotSatisfiable: ProblemType(
        416,
        "range_not_satisfiable",
        "Range outside the file",
        "The `Content-Range` header shows the size of the file.",
    ),
}
"""The problem type of each exception that a route can raise; subclasses inherit it."""

PROBLEM_BY_STATUS: Final[dict[int, ProblemType]] = {
    400: MALFORMED_JSON,
    404: ProblemType(404, "not_found", "Path not found", "/docs lists all paths."),
    405: ProblemType(
        405,
        "method_not_allowed",
        "Method not allowed",
        "The `Allow` header lists the methods of this path.",
    ),
    413: BODY_TOO_LARGE,
    503: ProblemType(
        503,
        "too_many_bodies",
        "Too many request bodies",
        "The bodies of all requests in progress fill KIRAZURI_MAX_BODIES_BYTES. Try again after "
        "`Retry-After` seconds. Requests without images are not affected.",
    ),
}
"""The problem types of errors that FastAPI itself raises."""

_JOB_ERRORS: Final[dict[str, str]] = {
    "bad_prompt": "The weights or brackets of the prompt cannot be parsed; see `detail`.",
    "input_missing": "init_image or mask is no longer stored; upload it and submit again.",
    "non_finite": "Latents or pixels were NaN or infinite; try another seed or a lower cfg_scale.",
    "lora_missing": "The worker has no LoRA of that name; GET /capabilities lists them.",
    "lora_changed": "The LoRA file was replaced after the job was accepted; submit it again.",
    "lora_unusable": "The LoRA cannot be read, or is for another architecture; `detail` names the "
    "unknown keys.",
    "engine_error": "The engine failed on this request; the worker's log has the details.",
    "out_of_memory": "Even a single image does not fit into memory; request a smaller one.",
    "encoding": "The image was generated but could not be encoded; try another image_format.",
    "output_refused": "The operator's output filter refused the image; `detail` is its reason.",
    "filter_broken": "The operator's output filter failed, so the image is withheld; the worker's "
    "log has the details.",
    "signing": "The image was generated but could not be signed, so it was not stored. The "
    "operator's certificate may have expired; the worker's log has the reason.",
    "storage": "The image was generated but could not be stored; submit the request again.",
    "unreadable": "This release cannot read the job's record; submit the request again.",
    "worker_lost": "Every worker that tried the job died; it may need too much memory.",
}
"""Explanations of the codes in a job's `error`."""


def _job_problem(code: str, explanation: str) -> ProblemType:
    error = job_error(code, "")
    return ProblemType(error.status, code, error.title, explanation)


JOB_PROBLEMS: Final = tuple(itertools.starmap(_job_problem, _JOB_ERRORS.items()))
"""The problems of failed jobs."""

PROBLEM_TYPES: Final[dict[str, ProblemType]] = {
    kind.code: kind
    for kind in (
        *PROBLEM_BY_EXCEPTION.values(),
        *PROBLEM_BY_STATUS.values(),
        VALIDATION_FAILED,
        NOT_READY,
        INTERNAL,
        NOT_HTTP,
        CROSS_ORIGIN,
        REQUEST_TOO_SLOW,
        WRONG_HOST,
        HEAD_TOO_LARGE,
        TOO_MANY_CONNECTIONS,
        *JOB_PROBLEMS,
    )
}
"""All problem types by code."""


def explanation_of(code: str) -> ProblemExplanation:
    """The explanation of the problem type `code`.

    Raises:
        UnknownProblem: no problem type has this code.
    """
    kind = PROBLEM_TYPES.get(code)
    if kind is None:
        raise errors.UnknownProblem(f"no problem type {printable(code)!r}")
    return ProblemExplanation(
        type=kind.path,
        code=kind.code,
        title=kind.title,
        status=kind.status,
        explanation=kind.explanation,
    )

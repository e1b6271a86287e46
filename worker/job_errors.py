"""Defines why jobs fail: a status and a title per error code."""

from worker.job import JobError

_PROBLEMS: dict[str, tuple[int, str]] = {
    "bad_prompt": (422, "The prompt cannot be encoded"),
    "input_missing": (422, "An input image is missing"),
    "non_finite": (500, "The model produced values that are not finite"),
    "lora_missing": (422, "A LoRA of the request does not exist any more"),
    "lora_changed": (422, "The file of a LoRA of the request has changed"),
    "lora_unusable": (422, "A LoRA of the request cannot be used with this checkpoint"),
    "engine_error": (500, "The engine could not run the request"),
    "out_of_memory": (500, "The request needs more memory than the device has"),
    "encoding": (500, "The image could not be encoded"),
    "output_refused": (403, "The output filter refused the image"),
    "filter_broken": (500, "The output filter failed"),
    "signing": (500, "The image could not be signed"),
    "storage": (503, "The image could not be stored"),
    "unreadable": (500, "The job was made by another version of the service"),
    "worker_lost": (500, "The worker died while it ran the request"),
}

FAILURES = tuple(_PROBLEMS)
"""All error codes, for metrics."""


def job_error(code: str, detail: str) -> JobError:
    """The problem for a code; an unknown code becomes a general failure."""
    status, title = _PROBLEMS.get(code, (500, "The request failed"))
    return JobError(type=f"/problems/{code}", title=title, status=status, detail=detail, code=code)

"""Why jobs fail: one problem per code, as clients see it."""

from worker.job import JobError

_PROBLEMS: dict[str, tuple[int, str]] = {
    "bad_prompt": (422, "The prompt cannot be encoded"),
    "input_missing": (422, "A picture to start from is missing"),
    "non_finite": (500, "The model gave no finite picture"),
    "lora_missing": (422, "A LoRA of the request is not there any more"),
    "lora_changed": (422, "A LoRA of the request is another file by now"),
    "lora_unusable": (422, "A LoRA of the request cannot be used with this checkpoint"),
    "engine_error": (500, "The engine could not carry out the request"),
    "out_of_memory": (500, "The request needs more memory than the device has"),
    "encoding": (500, "The picture could not be written in its format"),
    "output_refused": (403, "The operator's filter refuses the picture"),
    "filter_broken": (500, "The operator's filter could not look at the picture"),
    "signing": (500, "The picture could not be signed"),
    "storage": (503, "The picture could not be stored"),
    "unreadable": (500, "The job was made by another version of the service"),
    "worker_lost": (500, "The worker died while it carried out the request"),
}

FAILURES = tuple(_PROBLEMS)
"""The codes, for those who count them."""


def job_error(code: str, detail: str) -> JobError:
    """The problem for a code; one that is not listed is a general failure."""
    status, title = _PROBLEMS.get(code, (500, "The request failed"))
    return JobError(type=f"/problems/{code}", title=title, status=status, detail=detail, code=code)

"""Converts exceptions into `Failed` events."""

import logging
import traceback

import torch

from model.engine.protocol import Failed
from model.errors import (
    InputMissing,
    LoraChanged,
    LoraMissing,
    LoraUnusable,
    NonFiniteLatents,
    PromptError,
)

logger = logging.getLogger(__name__)

_PERMANENT_CODES = {
    PromptError: "bad_prompt",
    NonFiniteLatents: "non_finite",
    InputMissing: "input_missing",
    LoraMissing: "lora_missing",
    LoraChanged: "lora_changed",
    LoraUnusable: "lora_unusable",
}


def permanent_failure(job_id: str, exc: Exception) -> Failed | None:
    """The event for a fault that the same request would meet again; None for any other fault."""
    for kind, code in _PERMANENT_CODES.items():
        if isinstance(exc, kind):
            return Failed(job_id, code, str(exc), is_retryable=False)
    return None


def retryable_failure(job_id: str, exc: Exception) -> Failed:
    """The event for a fault that another attempt may avoid. Hides the exception's text."""
    if isinstance(exc, torch.OutOfMemoryError):
        detail = "the device has no memory for a single image of this request"
        return Failed(job_id, "out_of_memory", detail, is_retryable=True)
    logger.error("job=%s failed in the engine", job_id, exc_info=exc)
    detail = f"the engine failed: {type(exc).__name__}"
    return Failed(job_id, "engine_error", detail, is_retryable=True)


def without_frames(exc: Exception) -> Exception:
    """Release what the frames of a failed call still hold, such as the tensors of a forward.

    Must be called outside of them. The traceback keeps its lines.
    """
    linked: BaseException | None = exc
    while linked is not None:
        traceback.clear_frames(linked.__traceback__)
        linked = linked.__cause__ or linked.__context__
    return exc

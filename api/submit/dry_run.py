"""Plans a request without queueing it: final fields, tokens, warnings, cost and time."""

from typing import Literal

from pydantic import Field

from api.http.response_model import ResponseModel
from api.submit.advice import Advice
from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps
from worker.job import JobWarning
from worker.queue.eta import Eta


class PlannedRequest(ResolvedRequest):
    """A resolved request; a seed that the client left open is drawn at submission only."""

    seed: int | None = Field(  # type: ignore[assignment]  # the only field that may be null
        description="As requested; null if the client left it open."
    )


class PromptTokens(ResponseModel):
    """Length of a prompt in tokens of both tokenizers; the T5 count includes the end token."""

    qwen: int = Field(ge=0, description="Qwen3 tokens, which carry the meaning.")
    t5: int = Field(ge=1, description="T5 tokens, which carry the prompt weights.")
    limit: int = Field(ge=1, description="Maximum tokens of each that the model reads.")
    is_cut: bool = Field(description="Whether the end of the prompt is ignored.")


class TokenCounts(ResponseModel):
    """Token counts of both prompts; null if the service has no tokenizers."""

    prompt: PromptTokens | None
    negative_prompt: PromptTokens | None


class Plan(ResponseModel):
    """What a request would become if it were submitted now."""

    status: Literal["planned"] = Field(
        default="planned", description="Always `planned`; a job has another status."
    )
    request: PlannedRequest = Field(description="The request with every field filled in.")
    tokens: TokenCounts = Field(description="Lengths of the prompts.")
    warnings: tuple[JobWarning, ...] = Field(description="Advice from the checkpoint's card.")
    cost: float = Field(
        ge=0, description="Work in megapixel-steps: megapixels x evaluations x guidance x images."
    )
    queue_position: int | None = Field(
        description="Number of jobs ahead in the queue; null if Redis does not answer."
    )
    waiting_seconds: float | None = Field(
        description="Seconds until a worker starts it; null while no worker has been measured."
    )
    own_seconds: float | None = Field(
        description="Seconds from start to last image; null as above."
    )
    eta_seconds: float | None = Field(description="The sum of both; null as above.")


def make_plan(resolved: ResolvedRequest, advice: Advice, times: Eta, *, seed: int | None) -> Plan:
    """The plan of a request; `seed` is the client's, or None if it left the seed open."""
    tokens = {
        name: PromptTokens(qwen=found.qwen, t5=found.t5, limit=found.limit, is_cut=found.is_cut)
        for name, found in advice.tokens.items()
    }
    return Plan(
        request=PlannedRequest(**{**dict(resolved), "seed": seed}),
        tokens=TokenCounts(
            prompt=tokens.get("prompt"), negative_prompt=tokens.get("negative_prompt")
        ),
        warnings=advice.warnings,
        cost=round(megapixel_steps(resolved), 3),
        queue_position=times.queue_position,
        waiting_seconds=times.waiting_seconds,
        own_seconds=times.own_seconds,
        eta_seconds=times.eta_seconds,
    )

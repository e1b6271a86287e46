"""What a request would become: its prompt, tokens, warnings, cost and time. Queues nothing.

Knows neither Redis nor how a picture is made.
"""

from pydantic import BaseModel, ConfigDict, Field

from api.submit.advice import Advice
from model.resolved_request import ResolvedRequest
from model.workload import megapixel_steps
from worker.job import JobWarning
from worker.queue.eta import Eta


class PlannedRequest(ResolvedRequest):
    """A request with everything filled in but the seed, which is drawn at submission."""

    seed: int | None = Field(  # type: ignore[assignment]  # the one field that may stay open
        description="As asked for; null where one would be drawn."
    )


class PromptTokens(BaseModel):
    """Length of a prompt as its two tokenizers see it; T5's count has its end token."""

    model_config = ConfigDict(frozen=True)

    qwen: int = Field(ge=0, description="Tokens for Qwen3, which reads the meaning.")
    t5: int = Field(ge=1, description="Tokens for T5, which carry the weights.")
    limit: int = Field(ge=1, description="How many of each are read.")
    is_cut: bool = Field(description="Whether the end of the prompt is not read.")


class TokenCounts(BaseModel):
    """Lengths of both prompts; null where this process has no tokenizers."""

    model_config = ConfigDict(frozen=True)

    prompt: PromptTokens | None
    negative_prompt: PromptTokens | None


class Plan(BaseModel):
    """What would happen to a request if it were submitted now."""

    model_config = ConfigDict(frozen=True)

    request: PlannedRequest = Field(description="As it would be carried out.")
    tokens: TokenCounts = Field(description="How long the prompts are.")
    warnings: tuple[JobWarning, ...] = Field(description="The checkpoint's advice.")
    cost: float = Field(
        ge=0, description="Work in megapixel-steps: megapixels x evaluations x guidance x images."
    )
    queue_position: int | None = Field(
        description="How many jobs wait before it; null where the queue does not answer."
    )
    waiting_seconds: float | None = Field(
        description="Until its turn; null where no worker has been measured yet."
    )
    own_seconds: float | None = Field(description="From its turn to its last picture; or null.")
    eta_seconds: float | None = Field(description="The sum of both; or null.")


def make_plan(resolved: ResolvedRequest, advice: Advice, times: Eta, *, seed: int | None) -> Plan:
    """The plan of a request; `seed` as the client asked, null for one that would be drawn."""
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

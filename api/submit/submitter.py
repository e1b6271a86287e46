"""From a client's words to an accepted job: the one way in, whichever dialect they came in.

Knows no routes; what an owner may do and what is refused is decided here.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.auth.caller import Caller
from api.auth.key_limits import KeyLimitCheck, RateLimits
from api.submit.advice import Advice, advise
from api.submit.context import SubmissionContext
from api.submit.dependencies import (
    CurrentCaller,
    Loras,
    PromptTokenizers,
    Queue,
    RequestImages,
    RequestPolicyCheck,
    ServiceCard,
    from_state,
)
from api.submit.dry_run import Plan, make_plan
from api.submit.images.input_images import InputImages
from api.submit.lora_list import LoraList
from api.submit.policy_check import PolicyCheck
from api.webhooks.schemas import webhook_of
from model.card import Card
from model.prompting.tokens import Tokenizers
from model.request import MAX_SEED, GenerationRequest
from model.resolved_request import ResolvedRequest, resolve, resolve_prompts
from worker.errors import QueueUnavailable
from worker.job import Job
from worker.queue.eta import Eta
from worker.queue.job_queue import JobQueue


class Prepared(NamedTuple):
    """A request with nothing left open, and what there is to say about it."""

    resolved: ResolvedRequest
    advice: Advice


@dataclass(frozen=True, slots=True)
class _Submitter:
    """Takes requests in for one caller."""

    caller: Caller
    card: Card
    queue: JobQueue
    images: InputImages
    tokenizers: Tokenizers | None
    loras: LoraList
    policy: PolicyCheck
    key_limits: KeyLimitCheck
    request_model: type[GenerationRequest]

    async def validate(self, fields: Mapping[str, Any]) -> GenerationRequest:
        """The request that `fields` of `POST /generate` make up.

        Raises:
            RequestValidationError: one entry for every wrong field.
        """
        if fields.get("loras"):
            await self.loras.refresh()
        try:
            return self.request_model.model_validate(fields)
        except ValidationError as exc:
            errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
            raise RequestValidationError(errors) from exc

    async def prepare(self, body: GenerationRequest, *, is_stored: bool = True) -> Prepared:
        """Fill what the body leaves open, store its images if `is_stored`, and advise.

        Raises:
            RequestValidationError: a picture or LoRA that cannot be used.
            PolicyBlocked: the policy refuses its words.
            KeyForbids: the caller's key does not allow it.
            StoreError: pictures can neither be read nor written just now.
        """
        hashes = await self.loras.hashes(body)
        judgement = await asyncio.to_thread(
            self.policy.judge,
            self.caller,
            *resolve_prompts(body, self.card),
            loras=body.loras,
            trigger_words=self.loras.trigger_words(hashes),
        )
        inputs, changes = await self.images.prepare(body, is_stored=is_stored)
        seed = secrets.randbelow(MAX_SEED + 1)
        resolved = resolve(body, self.card, seed=seed, inputs=inputs, lora_hashes=hashes)
        self.key_limits.check(resolved)
        resolved, about_rating = self.policy.hold(resolved, judgement)
        known = (*self.loras.warnings(resolved, self.card), *about_rating)
        advice = await asyncio.to_thread(advise, body, resolved, self.card, self.tokenizers, known)
        return Prepared(resolved, advice._replace(warnings=(*changes, *advice.warnings)))

    async def plan(self, body: GenerationRequest) -> Plan:
        """What the request would become; without Redis only its place and time are unknown."""
        await self.key_limits.begin()
        resolved, advice = await self.prepare(body, is_stored=False)
        times = Eta()
        with suppress(QueueUnavailable):
            times = await self.queue.forecast(resolved)
        return make_plan(resolved, advice, times, seed=body.seed)

    async def submit(
        self, body: GenerationRequest, submission: SubmissionContext, *, attempt: int | None = None
    ) -> Job:
        """Accept the request on the terms of its headers.

        `attempt` is how often a client that tries again by itself has sent it before: each first
        time makes a job, and the next ones find it. None where the client does not tell.

        Raises:
            RequestValidationError, PolicyBlocked, KeyForbids, StoreError: as `prepare`.
            KeyLimitReached: it would be one too many for the caller's key.
            QueueFull, IdempotencyConflict, QueueUnavailable: as `JobQueue.admit`.
        """
        await self.key_limits.begin()
        resolved, advice = await self.prepare(body)
        fingerprint = await asyncio.to_thread(_fingerprint, body)
        key, is_own = submission.idempotency_key, False
        if key is None and attempt is not None:
            key, is_own = _attempts_key(fingerprint), attempt == 0
        try:
            return await self.queue.admit(
                resolved,
                warnings=advice.warnings,
                idempotency_key=key,
                is_key_renewed=is_own,
                fingerprint=fingerprint,
                traceparent=submission.traceparent,
                webhook=webhook_of(body, submission.base_url),
                cancel_after=submission.cancel_after,
                limits=self.caller.limits,
            )
        finally:
            await self.key_limits.end()

    async def replay(self, job_id: str, submission: SubmissionContext) -> Job:
        """Queue a succeeded job's request again, unchanged but for being deterministic.

        Raises:
            PolicyBlocked, KeyForbids: policy or key refuse it, maybe only by now.
            JobNotFound, JobExpired, JobNotSucceeded: there is nothing to repeat.
            KeyLimitReached: it would be one too many for the caller's key.
            QueueFull, IdempotencyConflict, QueueUnavailable: as `JobQueue.admit`.
        """
        request = (await self.queue.get(job_id)).request
        await self.key_limits.begin()
        self.key_limits.check(request)
        names = [lora.name for lora in request.loras]
        await asyncio.to_thread(
            self.policy.judge_again, self.caller, request, self.loras.trigger_words(names)
        )
        try:
            return await self.queue.replay(
                job_id,
                idempotency_key=submission.idempotency_key,
                traceparent=submission.traceparent,
                cancel_after=submission.cancel_after,
                limits=self.caller.limits,
            )
        finally:
            await self.key_limits.end()

    async def forget_attempts(self, body: GenerationRequest, job: Job) -> None:
        """The client has its answer: further attempts at this body are not about this job."""
        fingerprint = await asyncio.to_thread(_fingerprint, body)
        with suppress(QueueUnavailable):
            await self.queue.forget_key(_attempts_key(fingerprint), job.id)


def _attempts_key(fingerprint: str) -> str:
    """Stands for the job of a body until its answer was delivered."""
    return f"attempts:{fingerprint}"


def _fingerprint(body: GenerationRequest) -> str:
    """The same for bodies that ask for the same; taken before a seed is drawn."""
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


async def _submitter(
    request: Request,
    request_model: Annotated[type[GenerationRequest], from_state("request_model")],
    rates: Annotated[RateLimits, from_state("rates")],
    caller: CurrentCaller,
    card: ServiceCard,
    queue: Queue,
    images: RequestImages,
    tokenizers: PromptTokenizers,
    loras: Loras,
    policy: RequestPolicyCheck,
) -> _Submitter:
    key_limits = KeyLimitCheck(caller, rates, queue.owner_index, card, request)
    return _Submitter(
        caller, card, queue, images, tokenizers, loras, policy, key_limits, request_model
    )


Submitter = Annotated[_Submitter, Depends(_submitter)]
"""Takes requests in for the caller of this exchange."""

"""Turns a validated request into an accepted job, for all dialects alike.

In order: rate limit, LoRAs, policy, input images, key limits, warnings, admission to the queue.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.auth.caller import Caller
from api.auth.key_limits import KeyLimitCheck
from api.submit.advice import Advice, advise
from api.submit.context import SubmissionContext
from api.submit.cpu_work import check_text
from api.submit.dependencies import owned_images, owned_queue
from api.submit.dry_run import Plan, make_plan
from api.submit.images.input_images import InputImages
from api.submit.lora_list import LoraList
from api.submit.policy_check import PolicyCheck, chars_to_check
from api.submit.submission_route import key_limits_of
from api.webhooks.schemas import webhook_from
from model.card import Card
from model.policy.safety_tags import enforce_rating
from model.prompting.known_tags import KnownTags
from model.prompting.tokens import Tokenizers
from model.request import DRAWN_SEEDS, GenerationRequest
from model.resolved_request import ResolvedRequest, resolve_prompts, resolve_request
from worker.errors import QueueUnavailable
from worker.job import Job
from worker.queue.eta import Eta
from worker.queue.job_queue import JobQueue


@dataclass(frozen=True, slots=True)
class _Submitter:
    """Submits requests for one caller."""

    caller: Caller
    card: Card
    queue: JobQueue
    images: InputImages
    tokenizers: Tokenizers | None
    tags: KnownTags
    loras: LoraList
    policy: PolicyCheck
    key_limits: KeyLimitCheck
    request_model: type[GenerationRequest]

    async def validate(self, fields: Mapping[str, Any]) -> GenerationRequest:
        """Validate fields as `POST /generate` does; dialects translate their bodies to these.

        Raises:
            RequestValidationError: one entry for every invalid field.
        """
        if fields.get("loras"):
            await self.loras.refresh()
        try:
            return self.request_model.model_validate(fields)
        except ValidationError as exc:
            errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
            raise RequestValidationError(errors) from exc

    async def submit(
        self,
        body: GenerationRequest,
        submission: SubmissionContext,
        *,
        is_waiting: bool = False,
        attempt: int | None = None,
    ) -> Job:
        """Queue a job for the request, or find the job of an earlier call that is repeated.

        With `is_waiting` the call waits for the images, and finds the job of a call like it that
        ended without them. `attempt` is the retry count of a client that retries by itself and
        sends no idempotency key: attempt 0 makes a job, later attempts of the same body find it.

        Raises:
            RequestValidationError: an input image or LoRA is unusable.
            PolicyBlocked: the policy refuses the prompt.
            KeyForbids, KeyLimitReached: the caller's key does not allow the request.
            StoreError: input images cannot be read or stored now.
            QueueFull, IdempotencyConflict, QueueUnavailable: as `JobQueue.admit`.
        """
        await self.key_limits.count_submission()
        resolved, advice = await self._prepare(body)
        fingerprint = await _fingerprint(body)
        key, is_renewed = submission.idempotency_key, False
        if key is None and attempt is not None:
            key, is_renewed = _attempts_key(fingerprint), attempt == 0
        return await self.queue.admit(
            resolved,
            warnings=advice.warnings,
            idempotency_key=key,
            is_key_renewed=is_renewed,
            fingerprint=fingerprint,
            call=submission.wait_as(fingerprint) if is_waiting else None,
            traceparent=submission.traceparent,
            webhook=webhook_from(body, submission.base_url),
            cancel_after=submission.cancel_after,
            limits=self.caller.limits,
            on_usage=self.key_limits.report_usage,
        )

    async def plan(self, body: GenerationRequest) -> Plan:
        """Show what the request would become; raises as `submit` does, and queues nothing.

        Without Redis only queue position and times are unknown.
        """
        await self.key_limits.count_submission()
        resolved, advice = await self._prepare(body, is_stored=False)
        times = Eta()
        with suppress(QueueUnavailable):
            times = await self.queue.forecast(resolved)
        return make_plan(resolved, advice, times, seed=body.seed)

    async def _prepare(
        self, body: GenerationRequest, *, is_stored: bool = True
    ) -> tuple[ResolvedRequest, Advice]:
        """Check, fill in and lint a request; store its input images if `is_stored`."""
        hashes = await self.loras.hashes(body)
        prompts = resolve_prompts(body, self.card)
        trigger_words = self.loras.trigger_words(hashes)
        chars = chars_to_check(prompts, trigger_words)
        check = partial(self.policy.check, loras=body.loras, trigger_words=trigger_words)
        decision = await check_text(chars, partial(check, self.caller, *prompts))
        inputs, size_warnings = await self.images.prepare(body, is_stored=is_stored)
        seed = secrets.randbelow(DRAWN_SEEDS - body.num_images + 1)
        resolved = resolve_request(body, self.card, seed=seed, inputs=inputs, lora_hashes=hashes)
        self.key_limits.check(resolved)
        resolved, rating_warning = enforce_rating(resolved, decision, self.card.prompting)
        warnings = [*self.loras.warnings(resolved, self.card)]
        if rating_warning:
            warnings.append(rating_warning)
        known = self.tags if self.tags.has_counts else None
        advice = await check_text(
            chars, partial(advise, body, resolved, self.card, self.tokenizers, warnings, known)
        )
        return resolved, advice._replace(warnings=(*size_warnings, *advice.warnings))

    async def replay(self, job_id: str, submission: SubmissionContext) -> Job:
        """Queue the resolved request of a succeeded job again, with `deterministic`.

        Raises:
            PolicyBlocked, KeyForbids: the policy or the key does not allow it, or no longer does.
            JobNotFound, JobExpired, JobNotSucceeded: the job cannot be repeated.
            KeyLimitReached: the caller's key has reached a limit.
            QueueFull, IdempotencyConflict, QueueUnavailable: as `JobQueue.admit`.
        """
        request = (await self.queue.get(job_id)).request
        await self.key_limits.count_submission()
        self.key_limits.check(request)
        names = [lora.name for lora in request.loras]
        trigger_words = self.loras.trigger_words(names)
        await check_text(
            chars_to_check([request.prompt, request.negative_prompt], trigger_words),
            partial(self.policy.check_replay, self.caller, request, trigger_words),
        )
        is_waiting = submission.wait_seconds is not None
        return await self.queue.replay(
            job_id,
            idempotency_key=submission.idempotency_key,
            call=submission.wait_as("replay") if is_waiting else None,
            traceparent=submission.traceparent,
            cancel_after=submission.cancel_after,
            limits=self.caller.limits,
            on_usage=self.key_limits.report_usage,
        )

    async def forget_attempts(self, body: GenerationRequest, job: Job) -> None:
        """Call when the client has its answer: the same body makes a new job from now on."""
        fingerprint = await _fingerprint(body)
        with suppress(QueueUnavailable):
            await self.queue.forget_key(_attempts_key(fingerprint), job.id)


def _attempts_key(fingerprint: str) -> str:
    """Idempotency key for clients that retry without sending one."""
    return f"attempts:{fingerprint}"


async def _fingerprint(body: GenerationRequest) -> str:
    """SHA-256 of a body before a seed is drawn: equal bodies have equal fingerprints."""

    def digest() -> str:
        return hashlib.sha256(body.model_dump_json().encode()).hexdigest()

    if body.init_image is None:
        return digest()
    return await asyncio.to_thread(digest)  # megabytes


async def _submitter(request: Request) -> _Submitter:
    # Every dependency of a dependency costs time; this one is needed by each submission.
    state = request.state
    return _Submitter(
        caller=state.caller,
        card=state.card,
        queue=await owned_queue(request),
        images=await owned_images(request),
        tokenizers=state.tokenizers,
        tags=state.tags,
        loras=state.loras,
        policy=state.policy,
        key_limits=key_limits_of(request),
        request_model=state.request_model,
    )


Submitter = Annotated[_Submitter, Depends(_submitter)]
"""Submits requests for the caller of this HTTP request."""

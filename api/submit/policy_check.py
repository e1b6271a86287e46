"""The policy as requests meet it: judges, counts and logs refusals. Knows no routes."""

import logging
from collections.abc import Mapping, Sequence

from api.auth.caller import Caller
from api.http.field_errors import printable
from api.http.metrics import HttpMetrics
from model.card import Card
from model.errors import PolicyBlocked
from model.policy.policy import Policy, PolicyDecision, WeightedLora
from model.policy.rules import MAX_RATING
from model.policy.safety_tags import enforce_rating
from model.rating import Rating
from model.request import RequestWarning
from model.resolved_request import ResolvedRequest
from worker.telemetry.logs import log_context_value

log = logging.getLogger(__name__)

TriggerWords = Mapping[str, Sequence[str]]

_MAX_LOGGED_CHARS = 2000


class PolicyCheck:
    """One policy for all callers; `ceiling` is for those whose key has none of its own."""

    def __init__(
        self,
        policy: Policy,
        card: Card,
        metrics: HttpMetrics,
        *,
        ceiling: Rating,
        logs_prompts: bool,
    ) -> None:
        self._policy = policy
        self._card = card
        self._metrics = metrics
        self._ceiling = ceiling
        self._logs_prompts = logs_prompts

    def judge(
        self,
        caller: Caller,
        prompt: str,
        negative_prompt: str,
        *,
        loras: Sequence[WeightedLora],
        trigger_words: TriggerWords,
    ) -> PolicyDecision:
        """Let words pass that would be run so. PolicyBlocked if they are refused."""
        ceiling = caller.limits.max_rating or self._ceiling
        try:
            return self._policy.check(
                prompt, negative_prompt, loras=loras, trigger_words=trigger_words, ceiling=ceiling
            )
        except PolicyBlocked as exc:
            self._note(exc, caller, prompt, negative_prompt)
            raise

    def hold(
        self, request: ResolvedRequest, judgement: PolicyDecision
    ) -> tuple[ResolvedRequest, Sequence[RequestWarning]]:
        """The request with the safety tags that keep it where it is held, and a word about them."""
        held, warning = enforce_rating(request, judgement, self._card.prompting)
        return held, [warning] if warning else []

    def judge_again(
        self, caller: Caller, request: ResolvedRequest, trigger_words: TriggerWords
    ) -> None:
        """Let a request pass that was carried out before and may not be changed any more.

        Raises:
            PolicyBlocked: it is refused by now, or was made when a higher rating was allowed.
        """
        prompts = request.prompt, request.negative_prompt
        judgement = self.judge(caller, *prompts, loras=request.loras, trigger_words=trigger_words)
        if self.hold(request, judgement)[1]:
            exc = PolicyBlocked(
                MAX_RATING, f"it was made without what holds pictures to {judgement.limit}"
            )
            self._note(exc, caller, *prompts)
            raise exc

    def _note(self, exc: PolicyBlocked, caller: Caller, prompt: str, negative_prompt: str) -> None:
        self._metrics.count_refusal(exc.rule)
        about = (exc.rule, caller.owner or "-", log_context_value("request") or "-")
        if self._logs_prompts:
            shown = [printable(text, limit=_MAX_LOGGED_CHARS) for text in (prompt, negative_prompt)]
            log.info(
                "event=refused rule=%s owner=%s request=%s prompt=%r negative_prompt=%r",
                *(*about, *shown),
            )
        else:
            log.info("event=refused rule=%s owner=%s request=%s", *about)

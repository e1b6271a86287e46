"""Checks requests against the policy; counts and logs refusals."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from api.auth.caller import Caller
from api.http.field_errors import printable
from api.http.metrics import HttpMetrics
from model.card import Card
from model.errors import PolicyBlocked
from model.policy.policy import Policy, PolicyDecision, WeightedLora
from model.policy.rules import MAX_RATING
from model.policy.safety_tags import enforce_rating
from model.rating import Rating
from model.resolved_request import ResolvedRequest
from worker.telemetry.logs import log_context_value

log = logging.getLogger(__name__)

TriggerWords = Mapping[str, Sequence[str]]

_READINGS_OF_NAMES = 5
"""How often the policy reads a name at most: as it is, and split into words in four ways."""

_MAX_LOGGED_CHARS = 2000
_OF_THE_KEY = (
    "This limit belongs to the API key: the operator allows more with another key "
    "(`kirazuri keys add NAME --max-rating RATING`)"
)
_OF_THE_SERVICE = (
    "The operator allows more with KIRAZURI_MAX_RATING, with `kirazuri up --max-rating RATING`, or "
    "with a key that has its own limit (`kirazuri keys add NAME --max-rating RATING`)"
)


def _above_the_ceiling(caller: Caller, reason: str) -> PolicyBlocked:
    """The refusal of a request under the highest rating; says how the operator allows more."""
    way = _OF_THE_KEY if caller.limits.max_rating else _OF_THE_SERVICE
    return PolicyBlocked(MAX_RATING, f"{reason}. {way}")


def chars_to_check(prompts: Iterable[str], trigger_words: TriggerWords) -> int:
    """How many characters the policy reads; `trigger_words` has those of each LoRA by name."""
    names = sum(map(len, chain(trigger_words, *trigger_words.values())))
    return sum(map(len, prompts)) + _READINGS_OF_NAMES * names


class PolicyCheck:
    """Applies one policy to all callers; `ceiling` limits keys that have no rating limit."""

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

    def check(
        self,
        caller: Caller,
        prompt: str,
        negative_prompt: str,
        *,
        loras: Sequence[WeightedLora],
        trigger_words: TriggerWords,
    ) -> PolicyDecision:
        """Check the final prompts.

        Raises:
            PolicyBlocked: a rule refuses them. If it is the highest rating, the message says how
                the operator allows more.
        """
        try:
            return self._policy.check(
                prompt,
                negative_prompt,
                loras=loras,
                trigger_words=trigger_words,
                ceiling=self._ceiling_of(caller),
            )
        except PolicyBlocked as exc:
            self._report(exc, caller, prompt, negative_prompt)
            if exc.rule == MAX_RATING:
                raise _above_the_ceiling(caller, exc.reason) from None
            raise

    def check_replay(
        self, caller: Caller, request: ResolvedRequest, trigger_words: TriggerWords
    ) -> None:
        """Check a request that runs again unchanged.

        Raises:
            PolicyBlocked: the policy refuses the request now, or would add safety tags to it.
        """
        prompts = request.prompt, request.negative_prompt
        decision = self.check(caller, *prompts, loras=request.loras, trigger_words=trigger_words)
        _, warning = enforce_rating(request, decision, self._card.prompting)
        if warning:
            reason = f"its prompt lacks the safety tags that limit images to {decision.limit}"
            is_ceiling = decision.limit == self._ceiling_of(caller)  # not that of a minor
            exc = (
                _above_the_ceiling(caller, reason)
                if is_ceiling
                else PolicyBlocked(MAX_RATING, reason)
            )
            self._report(exc, caller, *prompts)
            raise exc

    def _ceiling_of(self, caller: Caller) -> Rating:
        return caller.limits.max_rating or self._ceiling

    def _report(
        self, exc: PolicyBlocked, caller: Caller, prompt: str, negative_prompt: str
    ) -> None:
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

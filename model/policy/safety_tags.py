"""Holds a request to a rating with the checkpoint's own safety tags, where all can see it."""

import re
from collections.abc import Iterator, Sequence

from model.card import Prompting
from model.policy.policy import PolicyDecision
from model.prompt_grammar import parse_prompt
from model.rating import RATINGS, Rating
from model.request import RequestWarning
from model.resolved_request import ResolvedRequest

_SEPARATOR = re.compile(r"[,\n]")


def enforce_rating(
    request: ResolvedRequest, decision: PolicyDecision, prompting: Prompting
) -> tuple[ResolvedRequest, RequestWarning | None]:
    """The request with the tags that keep its picture at or below the rating it is held to.

    The prompt begins with the tag of what its words ask for where it names no safety tag, or with
    `safe` where it is held to that; the negative prompt with all tags above. Only tags that the
    card has are put in, and the warning says which.
    """
    if decision.limit == RATINGS[-1]:
        return request, None
    tag = _missing_tag(request.prompt, decision, prompting)
    above = RATINGS[RATINGS.index(decision.limit) + 1 :]
    there = set(_full_tags(request.negative_prompt))
    away = [rating for rating in above if rating in prompting.safety and rating not in there]
    if tag is None and not away:
        return request, None
    told = [f"{tag} was put before the prompt"] if tag else []
    told += [f"{', '.join(away)} before the negative prompt"] if away else []
    held = request.model_copy(
        update={
            "prompt": _joined([tag] if tag else [], request.prompt),
            "negative_prompt": _joined(away, request.negative_prompt),
        }
    )
    detail = f"{' and '.join(told)}: the picture is held to {decision.limit}"
    return held, RequestWarning("rating_held", detail)


def _missing_tag(prompt: str, decision: PolicyDecision, prompting: Prompting) -> Rating | None:
    there = set(_full_tags(prompt)) & set(prompting.safety)
    if decision.limit == "safe":
        there &= {"safe"}
    return decision.requested if not there and decision.requested in prompting.safety else None


def _joined(tags: Sequence[str], prompt: str) -> str:
    return ", ".join([*tags, prompt] if prompt else tags)


def _full_tags(prompt: str) -> Iterator[str]:
    """The tags of a prompt that are read with their full weight, lower case."""
    tag, least = "", 1.0
    for text, weight in parse_prompt(prompt):
        first, *others = _SEPARATOR.split(text)
        tag, least = tag + first, min(least, weight) if first.strip() else least
        for other in others:
            if least >= 1:
                yield tag.strip().lower()
            tag, least = other, weight if other.strip() else 1.0
    if least >= 1:
        yield tag.strip().lower()

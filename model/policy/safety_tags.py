"""Limits the rating of a picture by adding the checkpoint's safety tags to its prompts."""

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
    """Return the request with the safety tags that limit its rating, and a warning about them.

    The prompt starts with the requested rating unless it has a safety tag with full weight; at the
    limit `safe` that tag must be `safe`. The negative prompt starts with all ratings above the
    limit. Only tags of the card are added. The warning is None if the request does not change.
    """
    if decision.limit == RATINGS[-1]:
        return request, None
    tag = _missing_tag(request.prompt, decision, prompting)
    above = RATINGS[RATINGS.index(decision.limit) + 1 :]
    present = set(_full_weight_tags(request.negative_prompt))
    excluded = [rating for rating in above if rating in prompting.safety and rating not in present]
    if tag is None and not excluded:
        return request, None
    added = [f"added {tag} to the prompt"] if tag else []
    added += [f"added {', '.join(excluded)} to the negative prompt"] if excluded else []
    limited = request.model_copy(
        update={
            "prompt": _joined([tag] if tag else [], request.prompt),
            "negative_prompt": _joined(excluded, request.negative_prompt),
        }
    )
    detail = f"{' and '.join(added)} to limit the rating to {decision.limit}"
    return limited, RequestWarning("rating_held", detail)


def _missing_tag(prompt: str, decision: PolicyDecision, prompting: Prompting) -> Rating | None:
    present = set(_full_weight_tags(prompt)) & set(prompting.safety)
    if decision.limit == "safe":
        present &= {"safe"}
    return decision.requested if not present and decision.requested in prompting.safety else None


def _joined(tags: Sequence[str], prompt: str) -> str:
    return ", ".join([*tags, prompt] if prompt else tags)


def _full_weight_tags(prompt: str) -> Iterator[str]:
    """The lower-case tags of a prompt whose weight is at least 1."""
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

"""What the card knows about good prompts, told as warnings. Never changes a prompt."""

import re
from collections.abc import Iterator

from model.card import Card
from model.request import RequestWarning, ResolvedRequest

_BARE_PARENTHESES = re.compile(r"(?<!\\)\(([^()\\:]*)\)(?!\\)")


def split_tags(prompt: str) -> list[str]:
    """The comma-separated parts of a prompt, trimmed, lower case, without empty ones."""
    return [tag for part in prompt.lower().split(",") if (tag := part.strip())]


def lint(request: ResolvedRequest, card: Card) -> tuple[RequestWarning, ...]:
    """Everything about the request that the checkpoint's authors would advise against."""
    return tuple(
        RequestWarning(code=code, detail=detail)
        for check in (_sampling, _size, _length, _order, _parentheses)
        for code, detail in check(request, card)
    )


def _sampling(request: ResolvedRequest, card: Card) -> Iterator[tuple[str, str]]:
    low, high = card.samplers[request.sampler].recommended_steps
    if not low <= request.steps <= high:
        yield (
            "steps_not_recommended",
            f"{request.steps} steps; {low} to {high} are recommended for {request.sampler}",
        )
    least, most = card.recommended_cfg_scale
    if not least <= request.cfg_scale <= most:
        yield (
            "cfg_scale_not_recommended",
            f"cfg_scale {request.cfg_scale:g}; {least:g} to {most:g} is recommended",
        )


def _size(request: ResolvedRequest, card: Card) -> Iterator[tuple[str, str]]:
    if (request.width, request.height) not in {(r.width, r.height) for r in card.resolutions}:
        presets = ", ".join(f"{r.name} {r.width}x{r.height}" for r in card.resolutions)
        yield (
            "size_not_trained",
            f"{request.width}x{request.height} is none of the sizes trained: {presets}",
        )


def _length(request: ResolvedRequest, card: Card) -> Iterator[tuple[str, str]]:
    count = len(split_tags(request.prompt))
    is_prose = len(request.prompt.split()) >= 2 * card.prompting.short_prompt_tags
    if count < card.prompting.short_prompt_tags and not is_prose:
        yield (
            "short_prompt",
            f"{count} tags; with fewer than {card.prompting.short_prompt_tags} "
            "details of characters and outfits tend to bleed into one another",
        )


def _order(request: ResolvedRequest, card: Card) -> Iterator[tuple[str, str]]:
    """Quality, meta and safety tags belong before the subject, the subject before the rest."""
    prompting = card.prompting
    words = {
        "quality": {*prompting.quality, *prompting.low_quality},
        "meta": set(prompting.meta),
        "safety": set(prompting.safety),
        "subject": set(prompting.subject),
    }
    rank = {"quality": 0, "meta": 0, "safety": 0, "subject": 1}
    last, last_tag = 0, ""
    for tag in split_tags(request.prompt):
        group = next((name for name, tags in words.items() if tag in tags), None)
        if group is not None and rank[group] < last:
            yield (
                "tag_order",
                f"{tag!r} stands after {last_tag!r}; the order trained is "
                + " ".join(f"[{name}]" for name in prompting.tag_order),
            )
            return
        place = rank[group] if group else 2
        if place > last:
            last, last_tag = place, tag


def _parentheses(request: ResolvedRequest, card: Card) -> Iterator[tuple[str, str]]:
    r"""`oil painting (medium)` is read as emphasis; the tag is `oil painting \(medium\)`."""
    for match in _BARE_PARENTHESES.finditer(request.prompt):
        before = request.prompt[: match.start()].rsplit(",", 1)[-1].strip()
        if before and match[1]:
            yield (
                "unescaped_parentheses",
                f"({match[1]}) is read as emphasis; as part of a tag write \\({match[1]}\\)",
            )
            return

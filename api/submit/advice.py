"""Lints a request and counts its tokens."""

from collections.abc import Iterable
from typing import NamedTuple

from model.card import Card
from model.prompting.known_tags import KnownTags
from model.prompting.lint import cut_warning, lint
from model.prompting.tokens import TokenCount, Tokenizers, count_tokens
from model.request import GenerationRequest, RequestWarning
from model.resolved_request import ResolvedRequest
from worker.job import JobWarning


class Advice(NamedTuple):
    """Warnings about a request, and token counts by prompt field; no counts without tokenizers."""

    warnings: tuple[JobWarning, ...]
    tokens: dict[str, TokenCount]


def advise(
    body: GenerationRequest,
    resolved: ResolvedRequest,
    card: Card,
    tokenizers: Tokenizers | None,
    more_warnings: Iterable[RequestWarning] = (),
    known: KnownTags | None = None,
) -> Advice:
    """Lint a request and, if there are tokenizers, count its tokens; takes milliseconds.

    `known` is the operator's list of tags. `more_warnings` are appended to those found here.
    """
    prompts = {"prompt": resolved.prompt, "negative_prompt": resolved.negative_prompt}
    tokens = {
        name: count_tokens(text, tokenizers, card.text.token_limit)
        for name, text in prompts.items()
        if tokenizers
    }
    # Without guidance the negative prompt is not used, so its length does not matter.
    used = ("prompt",) if resolved.cfg_scale == 1 else tuple(prompts)
    cut = [
        cut_warning(name, tokens[name]) for name in used if name in tokens and tokens[name].is_cut
    ]
    dropped = [body.dropped_warning] if body.dropped_warning else []
    found = [*dropped, *lint(resolved, card, body.tags, known), *cut, *more_warnings]
    return Advice(tuple(JobWarning(code=w.code, detail=w.detail) for w in found), tokens)

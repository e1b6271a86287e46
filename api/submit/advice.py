"""Lints a request and counts its tokens."""

from collections.abc import Iterable
from typing import NamedTuple

from model.card import Card
from model.prompting.lint import cut_warning, lint
from model.prompting.tokens import TokenCount, Tokenizers, count_tokens
from model.request import GenerationRequest, RequestWarning
from model.resolved_request import ResolvedRequest
from worker.job import JobWarning


class Advice(NamedTuple):
    """What is known about a request before any work is done."""

    warnings: tuple[JobWarning, ...]
    tokens: dict[str, TokenCount]


def advise(
    body: GenerationRequest,
    resolved: ResolvedRequest,
    card: Card,
    tokenizers: Tokenizers | None,
    known: Iterable[RequestWarning] = (),
) -> Advice:
    """Lint a request and count its tokens, where there are tokenizers; milliseconds of work.

    `known` is what else there is to say about it. Without guidance the negative prompt is not
    read, so that its length does not matter.
    """
    prompts = {"prompt": resolved.prompt, "negative_prompt": resolved.negative_prompt}
    tokens = {
        name: count_tokens(text, tokenizers, card.text.token_limit)
        for name, text in prompts.items()
        if tokenizers
    }
    read = ("prompt",) if resolved.cfg_scale == 1 else tuple(prompts)
    cut = [
        cut_warning(name, tokens[name]) for name in read if name in tokens and tokens[name].is_cut
    ]
    found = [*lint(resolved, card, body.tags), *cut, *known]
    return Advice(tuple(JobWarning(code=w.code, detail=w.detail) for w in found), tokens)

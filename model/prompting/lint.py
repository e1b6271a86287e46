"""Warns about prompts and settings that the card advises against. Never changes a request."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from model.card import Card
from model.prompting.known_tag_checks import (
    find_aliases,
    find_artists,
    find_bleeding,
    find_disorder,
)
from model.prompting.known_tags import KnownTags
from model.prompting.parts import is_prose, split_tags, tags_outside_prose
from model.prompting.syntax import (
    find_foreign_syntax,
    find_full_width_brackets,
    find_unbalanced_brackets,
    shorten,
)
from model.prompting.tag_list import SUBJECT_COUNT
from model.prompting.tokens import TokenCount
from model.request import RequestWarning, WarningCode
from model.resolved_request import ResolvedRequest
from model.tags import Tags, escape_tag, replace_underscores

_TAG_WORDS = 4
_MAX_UNKNOWN_FIRST = 3
_SIZE_SLACK = 0.05
_MANY = 5

# All patterns take linear time: quantifiers are bounded or stop where a match may begin.
_QUALIFIER = r"\((?:[^()\\,\n]{0,60}\w\w:\s?[^\W\d_])?[^()\\:,\n]{1,80}\)"
"""Brackets without a weight: a colon is between words, as in `(re:zero)`."""

_QUALIFIED = re.compile(
    rf"(?:^|(?<!\\)[(,\n])\s{{0,9}}([^\s()\\,\n][^()\\,\n]{{0,80}})((?:{_QUALIFIER}\s{{0,3}}){{1,4}})"
    r"(?=\s{0,9}(?:[,\n)]|:[\d.]{1,9}\s{0,9}\)|$))"
)
_SMALL_WORD = re.compile(r"an?|and|at|by|for|from|her|his|in|is|of|on|or|the|their|to|with")
_TAIL = re.compile(r"(?<=[^\W_])_+\([^()\\]*\)")
_UNDERSCORE = re.compile(r"[^\W_]_+\(?[^\W_]")
_ARTIST = re.compile(r"(?:artist:|(?:art|drawn|illustrated) by )\s*(.+)")
_SCORE = re.compile(r"score[ _]\d+(?:[ _]up)?")
_RATING = re.compile(r"rating[\s:_]{1,4}([^\W_]+)")
_FOREIGN_FIRST = re.compile(
    r"\w+ quality|year \d{4}|newest|recent|mid|early|old|oldest|(?:very |incredibly )?absurdres"
    r"|(?:(?:ultra|highly|extremely|very|hyper)[ -]?)?detailed|intricate details?|\d{1,2}k|u?hd|hdr"
)
"""Words for the quality and time of other checkpoints. Wherever they are, they mean no disorder."""

_SAFETY_WORDS = {
    "safe": "safe",
    "sfw": "safe",
    "general": "safe",
    "sensitive": "sensitive",
    "questionable": "nsfw",
    "nsfw": "nsfw",
    "explicit": "explicit",
}
"""Ratings of Danbooru and other services, with the safety tags of the Anima models."""

_RATINGS = {**_SAFETY_WORDS, "g": "safe", "s": "sensitive", "q": "nsfw", "e": "explicit"}

_SYNTAX: dict[WarningCode, Callable[[str], Iterator[str]]] = {
    "unknown_syntax": find_foreign_syntax,
    "unbalanced_brackets": find_unbalanced_brackets,
    "full_width_brackets": find_full_width_brackets,
}

CheckResult = Iterator[tuple[WarningCode, str]]


class _LintInput(NamedTuple):
    """A request to check. `tags` are the comma-separated parts of the prompt, including prose.

    `short_tags` are those that are not prose, `safety` the structured safety tags, `known` is the
    operator's list of tags. With one, `outside_prose` are the parts that are in no sentence.
    """

    request: ResolvedRequest
    card: Card
    tags: list[str]
    short_tags: list[str]
    safety: list[str]
    known: KnownTags | None
    outside_prose: list[str]


def lint(
    request: ResolvedRequest,
    card: Card,
    tags: Tags | None = None,
    known: KnownTags | None = None,
) -> tuple[RequestWarning, ...]:
    """Warnings about everything in the request that the card advises against.

    `tags` are the structured tags in the prompt, `known` is the operator's list of tags.
    """
    safety = [replace_underscores(tag).lower() for tag in tags.safety] if tags else []
    parts = split_tags(request.prompt)
    short_tags = [part for part in parts if not is_prose(part)]
    outside = tags_outside_prose(request.prompt, known.__contains__) if known else []
    lint_input = _LintInput(request, card, parts, short_tags, safety, known, outside)
    return tuple(
        RequestWarning(code=code, detail=detail)
        for check in _CHECKS
        for code, detail in check(lint_input)
    )


def cut_warning(name: str, tokens: TokenCount) -> RequestWarning:
    """The warning that the model does not read the end of a prompt, the request field `name`."""
    return RequestWarning(
        code="prompt_cut",
        detail=f"{name} has {tokens.t5} T5 and {tokens.qwen} Qwen tokens; "
        f"the text path reads the first {tokens.limit}",
    )


def _check_sampling(lint_input: _LintInput) -> CheckResult:
    request, card = lint_input.request, lint_input.card
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


def _check_scheduler(lint_input: _LintInput) -> CheckResult:
    wanted, recommended = lint_input.request.scheduler, lint_input.card.recommended_schedulers
    if recommended and wanted not in recommended:
        note = lint_input.card.scheduler_notes.get(wanted, "")
        yield (
            "scheduler_not_recommended",
            f"{wanted}{note and f' ({note})'}; recommended are {', '.join(recommended)}",
        )


def _check_size(lint_input: _LintInput) -> CheckResult:
    """Warn about sizes that are smaller, larger or longer than all presets."""
    request, presets = lint_input.request, lint_input.card.resolutions
    areas = [preset.width * preset.height for preset in presets]
    longest = max(max(p.width / p.height, p.height / p.width) for p in presets)
    sizes = [(request.width, request.height)]
    if request.hires:
        sizes.append((request.hires.width, request.hires.height))
    for width, height in sizes:
        is_trained_area = (
            min(areas) * (1 - _SIZE_SLACK) <= width * height <= max(areas) * (1 + _SIZE_SLACK)
        )
        is_longer = max(width / height, height / width) > longest * (1 + _SIZE_SLACK)
        if not is_trained_area or is_longer:
            names = ", ".join(f"{p.name} {p.width}x{p.height}" for p in presets)
            yield "size_not_trained", f"{width}x{height} differs from the trained sizes: {names}"
            return


def _check_length(lint_input: _LintInput) -> CheckResult:
    least, count = lint_input.card.prompting.short_prompt_tags, len(lint_input.tags)
    if count < least and sum(len(tag.split()) for tag in lint_input.tags) < 2 * least:
        known = lint_input.known
        spreading = find_bleeding(lint_input.outside_prose, known) if known else []
        yield (
            "short_prompt",
            f"{count} {'tag' if count == 1 else 'tags'}; with fewer than {least}, "
            "details of characters and outfits tend to mix"
            + (f"; so may the colours of {', '.join(spreading)}" if spreading else ""),
        )


def _check_order(lint_input: _LintInput) -> CheckResult:
    """Quality, meta and safety tags belong before the subject, the subject before the rest.

    A few unknown tags may be of the first kinds as well. Tags may precede or follow prose.
    """
    prompting = lint_input.card.prompting
    first = {*prompting.quality, *prompting.low_quality, *prompting.meta, *prompting.safety}
    has_prose = len(lint_input.short_tags) < len(lint_input.tags)
    last, last_tag, unknown = 0, "", 0
    for tag in lint_input.tags:
        is_first = tag in first or tag in _SAFETY_WORDS or _SCORE.fullmatch(tag)
        is_subject = tag in prompting.subject or SUBJECT_COUNT.fullmatch(tag)
        place = 0 if is_first else 1 if is_subject else 2
        if place < last:
            yield (
                "tag_order",
                f"{tag!r} comes after {shorten(last_tag)!r}; the trained order is "
                + " ".join(f"[{name}]" for name in prompting.tag_order),
            )
            return
        unknown += place == 2 and not _FOREIGN_FIRST.fullmatch(tag)
        if place == 1 or (unknown >= _MAX_UNKNOWN_FIRST and not has_prose):
            last, last_tag = place, tag
    if lint_input.known:
        yield from find_disorder(lint_input.outside_prose, lint_input.card, lint_input.known)


def _check_known(lint_input: _LintInput) -> CheckResult:
    """Aliases and misspelt tags, if there is a list of tags."""
    if lint_input.known:
        yield from find_aliases(lint_input.outside_prose, lint_input.card, lint_input.known)


def _check_parentheses(lint_input: _LintInput) -> CheckResult:
    r"""`oil painting (medium)` is emphasis; the tag is `oil painting \(medium\)`."""
    for match in _QUALIFIED.finditer(lint_input.request.prompt):
        before, brackets = match[1].strip(), match[2].strip()
        words = before.lower().split()
        if len(words) <= _TAG_WORDS and not _SMALL_WORD.fullmatch(words[-1]):
            yield (
                "unescaped_parentheses",
                f"{brackets} means emphasis; for the tag, write "
                f"{escape_tag(f'{before} {brackets}')}",
            )
            return


def _check_safety(lint_input: _LintInput) -> CheckResult:
    known = lint_input.card.prompting.safety
    for tag in [*lint_input.safety, *lint_input.tags]:
        rating = _RATING.fullmatch(tag)
        word = rating[1] if rating else tag
        is_safety = rating or tag in lint_input.safety or tag in _SAFETY_WORDS
        if known and is_safety and tag not in known:
            meant = _RATINGS.get(word)
            advice = f"write {meant}" if meant in known else f"its tags are {', '.join(known)}"
            yield (
                "unknown_safety_tag",
                f"{shorten(tag)!r} is not a safety tag of this checkpoint; {advice}",
            )
            return


def _check_quality(lint_input: _LintInput) -> CheckResult:
    """`score_7` is a quality tag of other checkpoints."""
    known = (*lint_input.card.prompting.quality, *lint_input.card.prompting.low_quality)
    scores = [tag for tag in lint_input.tags if _SCORE.fullmatch(tag) and tag not in known]
    if scores and not any(_SCORE.fullmatch(word) for word in known):
        yield (
            "unknown_quality_tag",
            f"{scores[0]} is not a quality tag of this checkpoint; "
            f"its tags are {', '.join(lint_input.card.prompting.quality)}",
        )


def _check_underscores(lint_input: _LintInput) -> CheckResult:
    if "_" not in lint_input.request.prompt:
        return
    bare = _TAIL.sub("", lint_input.request.prompt)  # `unescaped_parentheses` covers these
    found = [
        tag
        for tag in (lint_input.tags if bare == lint_input.request.prompt else split_tags(bare))
        if _UNDERSCORE.search(tag)
        and replace_underscores(tag) != tag
        and not (_SCORE.fullmatch(tag) or _RATING.fullmatch(tag))
        and not re.search(r"[<>:/]|__", tag)
    ]
    if found:
        pairs = ", ".join(
            f"{shorten(replace_underscores(tag))} for {shorten(tag)}" for tag in found[:_MANY]
        )
        yield (
            "underscores_in_tags",
            f"the checkpoint was trained with spaces in tags: write {pairs}",
        )


def _check_duplicates(lint_input: _LintInput) -> CheckResult:
    counted = Counter(map(replace_underscores, lint_input.short_tags))
    found = [
        tag for tag, times in counted.items() if times > 1 and tag.strip() not in ("", "break")
    ]
    if found:
        listed = ", ".join(map(shorten, found[:_MANY]))
        yield "duplicate_tags", f"{listed} repeated; to emphasize a tag, write (tag:1.2)"


def _check_artist(lint_input: _LintInput) -> CheckResult:
    prefix = lint_input.card.prompting.artist_prefix
    for tag in lint_input.tags:
        match = _ARTIST.fullmatch(tag)
        if prefix and match and not is_prose(tag):
            name = shorten(escape_tag(match[1], prefix=prefix))
            yield "artist_prefix", f"{shorten(tag)!r} is an artist; write {name}"
            return
    if lint_input.known:
        yield from find_artists(lint_input.outside_prose, lint_input.card, lint_input.known)


def _check_syntax(lint_input: _LintInput) -> CheckResult:
    """Syntax without effect, also in the negative prompt if there is guidance."""
    request = lint_input.request
    for code, find in _SYNTAX.items():
        advice = list(find(request.prompt))[:_MANY]
        if request.cfg_scale != 1:
            negative = list(find(request.negative_prompt))[:_MANY]
            advice += [f"negative_prompt: {found}" for found in negative]
        if advice:
            yield code, "; ".join(advice)


_CHECKS = (
    _check_sampling,
    _check_scheduler,
    _check_size,
    _check_length,
    _check_order,
    _check_parentheses,
    _check_safety,
    _check_quality,
    _check_underscores,
    _check_duplicates,
    _check_artist,
    _check_known,
    _check_syntax,
)

"""What the card knows about good requests, told as warnings. Never changes a prompt."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from model.card import Card
from model.prompt_grammar import plain_text
from model.prompting.tokens import TokenCount
from model.request import RequestWarning, WarningCode
from model.resolved_request import ResolvedRequest
from model.tags import Tags, escape_tag, replace_underscores

_SEPARATOR = re.compile(r"[,\n]")
_SENTENCE = re.compile(r"\w[.!?](?:\s|$)")
_PROSE_WORDS = 7
"""Tags have fewer words."""

_TAG_WORDS = 4
_STRANGERS = 3
_SIZE_SLACK = 0.05
_MANY = 5
_SHOWN_CHARS = 60

# All of these take linear time: quantifiers are bounded, or stop at what may begin a match.
_QUALIFIED = re.compile(
    r"(?:^|(?<!\\)[(,\n])\s{0,9}([^\s()\\,\n][^()\\,\n]{0,80})\(([^()\\:,\n]{1,80})\)"
    r"(?=\s{0,9}(?:[,\n)]|:[\d.]{1,9}\s{0,9}\)|$))"
)
_SMALL_WORD = re.compile(r"an?|and|at|by|for|from|her|his|in|is|of|on|or|the|their|to|with")
_COUNT = re.compile(r"\d\+?(?:girl|boy|other)s?|multiple (?:girls|boys|others)|solo(?: focus)?")
_TAIL = re.compile(r"(?<=[^\W_])_+\([^()\\]*\)")
_UNDERSCORE = re.compile(r"[^\W_]_+\(?[^\W_]")
_ARTIST = re.compile(r"(?:artist:|(?:art|drawn|illustrated) by )\s*(.+)")
_SCORE = re.compile(r"score[ _]\d+(?:[ _]up)?")
_RATING = re.compile(r"rating[\s:_]{1,4}([^\W_]+)")
_SAFETY_WORDS = {
    "safe": "safe",
    "sfw": "safe",
    "general": "safe",
    "sensitive": "sensitive",
    "questionable": "nsfw",
    "nsfw": "nsfw",
    "explicit": "explicit",
}
"""Danbooru's ratings and other servers' words, and what the Anima models call them."""

_RATINGS = {**_SAFETY_WORDS, "g": "safe", "s": "sensitive", "q": "nsfw", "e": "explicit"}

_SYNTAX = {
    r"\bBREAK\b": "{0} is read as a word: a prompt is one text here",
    r"<(?:lora|lyco|hypernet):[^<>]*>": "{0} is read as words; LoRAs have a field of their own",
    r"\bembedding:\S+": "{0} is read as words",
    r"(?<!\w)__[^\W_][\w/-]{0,40}__(?!\w)": "{0} is read as words",
    r"(?<!\\)\[(?=[^\[\]]*\w)[^\[\]]*\]": "{0} does not weaken; write (words:0.9)",
    r"\{(?=[^{}]*\w)[^{}]*\}": "{0} does not strengthen; write (words:1.1)",
}

Found = Iterator[tuple[WarningCode, str]]


class _LintInput(NamedTuple):
    """What is looked at. `tags` are the prompt's comma-separated parts, prose among them."""

    request: ResolvedRequest
    card: Card
    tags: list[str]
    safety: list[str]


def split_tags(prompt: str) -> list[str]:
    """The parts of a prompt between commas and line ends, trimmed, lower case, none empty.

    Brackets and weights are left out: `(Red hair:1.2)` is `red hair`.
    """
    return [tag for part in _SEPARATOR.split(plain_text(prompt).lower()) if (tag := part.strip())]


def is_prose(part: str) -> bool:
    """Whether a part of a prompt is (of) a sentence rather than a tag."""
    return len(part.split()) >= _PROSE_WORDS or (
        len(part.split()) > 2 and _SENTENCE.search(part) is not None
    )


def lint(
    request: ResolvedRequest, card: Card, tags: Tags | None = None
) -> tuple[RequestWarning, ...]:
    """Everything about the request that the checkpoint's authors would advise against.

    `tags` are those that the prompt was made of.
    """
    safety = [replace_underscores(tag).lower() for tag in tags.safety] if tags else []
    draft = _LintInput(request, card, split_tags(request.prompt), safety)
    return tuple(
        RequestWarning(code=code, detail=detail)
        for check in _CHECKS
        for code, detail in check(draft)
    )


def _shown(text: str) -> str:
    """`text` at a length that an answer can bear."""
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def cut_warning(name: str, tokens: TokenCount) -> RequestWarning:
    """Say that the end of a prompt is not read; `name` is the request's field."""
    return RequestWarning(
        code="prompt_cut",
        detail=f"{name} has {tokens.t5} T5 and {tokens.qwen} Qwen tokens; "
        f"the text path reads the first {tokens.limit}",
    )


def _sampling(draft: _LintInput) -> Found:
    request, card = draft.request, draft.card
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


def _scheduler(draft: _LintInput) -> Found:
    wanted, recommended = draft.request.scheduler, draft.card.recommended_schedulers
    if recommended and wanted not in recommended:
        note = draft.card.scheduler_notes.get(wanted, "")
        yield (
            "scheduler_not_recommended",
            f"{wanted}{note and f' ({note})'}; recommended are {', '.join(recommended)}",
        )


def _size(draft: _LintInput) -> Found:
    """Sizes between those trained are as good; smaller, larger and longer ones are not."""
    request, presets = draft.request, draft.card.resolutions
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
            yield "size_not_trained", f"{width}x{height} is unlike the sizes trained: {names}"
            return


def _length(draft: _LintInput) -> Found:
    least, count = draft.card.prompting.short_prompt_tags, len(draft.tags)
    if count < least and sum(len(tag.split()) for tag in draft.tags) < 2 * least:
        yield (
            "short_prompt",
            f"{count} {'tag' if count == 1 else 'tags'}; with fewer than {least} "
            "details of characters and outfits tend to bleed into one another",
        )


def _order(draft: _LintInput) -> Found:
    """Quality, meta and safety tags belong before the subject, the subject before the rest.

    A few words that the card does not know may be of the first kinds too, and where there is
    prose, tags may stand before or after it.
    """
    prompting = draft.card.prompting
    first = {*prompting.quality, *prompting.low_quality, *prompting.meta, *prompting.safety}
    has_prose = any(map(is_prose, draft.tags))
    last, last_tag, strangers = 0, "", 0
    for tag in draft.tags:
        is_first = tag in first or tag in _SAFETY_WORDS or _SCORE.fullmatch(tag)
        is_subject = tag in prompting.subject or _COUNT.fullmatch(tag)
        place = 0 if is_first else 1 if is_subject else 2
        if place < last:
            yield (
                "tag_order",
                f"{tag!r} stands after {_shown(last_tag)!r}; the order trained is "
                + " ".join(f"[{name}]" for name in prompting.tag_order),
            )
            return
        strangers += place == 2
        if place == 1 or (strangers >= _STRANGERS and not has_prose):
            last, last_tag = place, tag


def _parentheses(draft: _LintInput) -> Found:
    r"""`oil painting (medium)` is read as emphasis; the tag is `oil painting \(medium\)`."""
    for match in _QUALIFIED.finditer(draft.request.prompt):
        before, inside = match[1].strip(), match[2].strip()
        words = before.lower().split()
        if len(words) <= _TAG_WORDS and not _SMALL_WORD.fullmatch(words[-1]) and inside:
            yield (
                "unescaped_parentheses",
                f"({inside}) is read as emphasis; for the tag write "
                f"{escape_tag(f'{before} ({inside})')}",
            )
            return


def _safety(draft: _LintInput) -> Found:
    known = draft.card.prompting.safety
    for tag in [*draft.safety, *draft.tags]:
        rating = _RATING.fullmatch(tag)
        word = rating[1] if rating else tag
        is_safety = rating or tag in draft.safety or tag in _SAFETY_WORDS
        if known and is_safety and tag not in known:
            meant = _RATINGS.get(word)
            advice = f"write {meant}" if meant in known else f"there are {', '.join(known)}"
            yield (
                "unknown_safety_tag",
                f"{_shown(tag)!r} is no safety tag of this checkpoint; {advice}",
            )
            return


def _quality(draft: _LintInput) -> Found:
    """`score_7` is a word of other checkpoints."""
    known = (*draft.card.prompting.quality, *draft.card.prompting.low_quality)
    scores = [tag for tag in draft.tags if _SCORE.fullmatch(tag) and tag not in known]
    if scores and not any(_SCORE.fullmatch(word) for word in known):
        yield (
            "unknown_quality_tag",
            f"{scores[0]} is no quality tag of this checkpoint; "
            f"its own are {', '.join(draft.card.prompting.quality)}",
        )


def _underscores(draft: _LintInput) -> Found:
    bare = _TAIL.sub("", draft.request.prompt)  # what `unescaped_parentheses` tells
    found = [
        tag
        for tag in (draft.tags if bare == draft.request.prompt else split_tags(bare))
        if _UNDERSCORE.search(tag)
        and replace_underscores(tag) != tag
        and not (_SCORE.fullmatch(tag) or _RATING.fullmatch(tag))
        and not re.search(r"[<>:/]|__", tag)
    ]
    if found:
        pairs = ", ".join(
            f"{_shown(replace_underscores(tag))} for {_shown(tag)}" for tag in found[:_MANY]
        )
        yield "underscores_in_tags", f"tags were trained with spaces: write {pairs}"


def _duplicates(draft: _LintInput) -> Found:
    counted = Counter(replace_underscores(tag) for tag in draft.tags if not is_prose(tag))
    found = [tag for tag, times in counted.items() if times > 1 and tag != "break"]
    if found:
        listed = ", ".join(map(_shown, found[:_MANY]))
        yield "duplicate_tags", f"{listed} more than once; to stress a tag write (tag:1.2)"


def _artist(draft: _LintInput) -> Found:
    prefix = draft.card.prompting.artist_prefix
    for tag in draft.tags:
        match = _ARTIST.fullmatch(tag)
        if prefix and match and not is_prose(tag):
            name = _shown(escape_tag(match[1], prefix=prefix))
            yield "artist_prefix", f"{_shown(tag)!r} names an artist; the tag is {name}"
            return


def _syntax(draft: _LintInput) -> Found:
    """What means something to other programs and is plain text here."""
    advice = [
        reason.format(_shown(match[0]))
        for pattern, reason in _SYNTAX.items()
        if (match := re.search(pattern, draft.request.prompt))
    ]
    if advice:
        yield "unknown_syntax", "; ".join(advice)


_CHECKS = (
    _sampling,
    _scheduler,
    _size,
    _length,
    _order,
    _parentheses,
    _safety,
    _quality,
    _underscores,
    _duplicates,
    _artist,
    _syntax,
)

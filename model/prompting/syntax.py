"""Finds syntax in a prompt that has no effect here, though it looks as if it had.

Each function yields one text per finding: what is written and what to write instead.
"""

import re
from collections.abc import Callable, Iterator

_SHOWN_CHARS = 60

# All patterns take linear time: quantifiers are bounded or stop where a match may begin.
_KEYWORD = (
    r"(?<![\"'“‘])(?:(?<![A-Z]{{2}}[ \t])|(?<=\bBREAK[ \t])|(?={0}\s+(?![A-Z]{{2}})))"
    r"\b{0}\b(?![ \t](?!BREAK\b)[A-Z]{{2}})"
)
"""A word in capitals that is neither quoted nor part of a title in capitals: `PRISON BREAK`."""

_PLAIN = {
    _KEYWORD.format("BREAK"): "{0} is plain text; a prompt is never split",
    _KEYWORD.format("AND"): "{0} is plain text; prompts are not combined",
    r"\bADD(?:COL|ROW|COMM|BASE)\b": "{0} is plain text; an image has no regions",
    r"<(?:lora|lyco|hypernet):[^<>]*>": "{0} is plain text; use the field `loras`",
    r"<(?:embed|embedding):[^<>]*>": "{0} is plain text; embeddings are not supported",
    r"<(?:random|wildcard|wc|alternate|alt|fromto|repeat)(?:\[[^<>\]]*\])?:[^<>]*>": (
        "{0} is plain text; write the words themselves"
    ),
    r"<(?:segment|object|region|clear|extend)(?:\[[^<>\]]*\])?:[^<>]*>": (
        "{0} is plain text; an image has no regions"
    ),
    r"<(?:preset|p|param|setvar|var|setmacro|macro|trigger|comment)(?:\[[^<>\]]*\])?(?::[^<>]*)?>|"
    r"<break>": "{0} is plain text",
    r"\bembedding:[^\s,:()]+": "{0} is plain text; embeddings are not supported",
    r"(?<!\w)__(?=[*~]{0,2}/?[^\W_])[\w*~./-]{0,80}[\w*]__(?!\w)": (
        "{0} is plain text; nothing is chosen from a list"
    ),
    r"(?<!\\)\$\{[^{}]*\}": "{0} is plain text; there are no variables",
    r"(?<![\w.:])(-?\d{1,2}(?:\.\d{1,3})?)::(?=\s{0,9}\w)": (
        "{0} does not set a weight; write (words:{1})"
    ),
    r"(?<!\\)\)(\d\.\d{1,3})(?=[\s,)]|$)": "{0} does not set a weight; write (words:{1})",
    r"(?<!\\)\)\+{1,9}(?=[\s,)]|$)": "{0} does not strengthen; write (words:1.1)",
    r"(?<!\\)\)-{1,9}(?=[,)]|$)": "{0} does not weaken; write (words:0.9)",
}
"""Patterns of single constructs; the advice shows the match and its groups."""

_SQUARE = re.compile(r"(?<![\\\[])(\[{1,20})(?=[^\[\]]*\w)([^\[\]]*)\]{1,20}")
_CURLY = re.compile(r"(?<![\\{$])(\{{1,20})(?=[^{}]*\w)([^{}]*)\}{1,20}")
_ANGLE_OPTION = re.compile(r"<[a-z]{1,20}\[[^<>\[\]]*\]")
_EDITING = re.compile(r":\s{0,9}(?:\d{1,4}(?:\.\d{0,6})?|\.\d{1,6})\s{0,9}$")
_JSON_KEY = re.compile(r"[\"']\s{0,9}:")

_OPEN, _CLOSE, _COLON = "(（﹙", ")）﹚", ":：﹕∶"
_NO_BRACKET = f"[^{_OPEN}{_CLOSE}\\n]"
_WEIGHT = re.compile(
    rf"([{_OPEN}]){_NO_BRACKET}{{0,200}}(?<!\d)([{_COLON}])"
    rf"(\s{{0,3}}[-+]?[\d.．]{{1,6}})\s{{0,3}}([{_CLOSE}])"
)
_WHOLE_PART = re.compile(
    r"(?:^|(?<=[,，\n]))\s{0,9}"
    r"([（﹙](?=[^）﹚]{0,80}[A-Za-z]{2})[ -'*-~]{1,80}[）﹚])\s{0,9}(?=[,，\n]|$)"
)
_DOUBLED = re.compile(r"([（﹙]{2,20}(?=[^（﹙）﹚]*\w)[^（﹙）﹚]*[）﹚]{2,20})")
_HALF_WIDTH = str.maketrans("（﹙）﹚：﹕∶．０１２３４５６７８９", "(()):::.0123456789")

_BRACKET = re.compile(r"\\[()]|[()]")
_TOKEN = re.compile(r"[^\s,]+")
_WORD = re.compile(r"\w\w")
_EMOTICON = re.compile(
    r"[<>}\]|]?[:;=8xX%][-'^o*~]?[()]{1,9}|[()]{1,9}[-'^o*~]?[:;=][<>]?|"
    r"(?:[A-Za-z]|[ivx]{1,4}|\d{1,2})\)"
)
"""Tokens with a bracket that nobody closes: `:)`, `(;`, and numbers of points, `1)`."""

_MAX_EMOTICON = 12
_BRACKETS_SHOWN = 30


def shorten(text: str) -> str:
    """Shorten a text for a message."""
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def find_foreign_syntax(prompt: str) -> Iterator[str]:
    """Find constructs of other programs that are plain text here; each kind once."""
    for pattern, advice in _PLAIN.items():
        if match := re.search(pattern, prompt):
            yield advice.format(shorten(match[0]), *match.groups())
    rest = _ANGLE_OPTION.sub("", prompt)
    yield from _first_of_each(_SQUARE, _square_advice, rest)
    yield from _first_of_each(_CURLY, _curly_advice, rest)


def _first_of_each(
    pattern: re.Pattern[str], advice: Callable[[str, int], str | None], prompt: str
) -> Iterator[str]:
    """The advice on the first brackets of each kind: a kind has one advice."""
    seen: set[str] = set()
    for match in pattern.finditer(prompt):
        found = advice(match[2], len(match[1]))
        if found and found not in seen:
            seen.add(found)
            yield f"{shorten(match[0])} {found}"


def _square_advice(inside: str, depth: int) -> str:
    if "|" in inside:
        return "does not alternate between words; write one of them"
    if _EDITING.search(inside):
        return "does not change the prompt at a step; write only the words that shall count"
    return f"does not weaken; write (words:{0.9**depth:.2g})"


def _curly_advice(inside: str, depth: int) -> str | None:
    if "|" in inside or "$$" in inside:
        return "is not replaced by one of its choices; write one of them"
    if _JSON_KEY.search(inside):
        return None
    return f"does not strengthen; write (words:{1.05**depth:.3g})"


def find_full_width_brackets(prompt: str) -> Iterator[str]:
    """Find weights in full-width brackets, or with a full-width colon: they are plain text.

    Leaves full-width brackets of prose alone.
    """
    for pattern in (_WEIGHT, _DOUBLED, _WHOLE_PART):
        for match in pattern.finditer(prompt):
            if not "".join(match.groups()).isascii():
                found = match[0].strip()
                meant = found.translate(_HALF_WIDTH)
                yield f"{shorten(found)} has no weight; write {shorten(meant)}"
                return


def find_unbalanced_brackets(prompt: str) -> Iterator[str]:
    """Find the first bracket without a partner, unless it is an emoticon or numbers a point.

    An emoticon counts as well if brackets follow it, because they may lose their weight.
    """
    # `find_full_width_brackets` covers these.
    text = _WEIGHT.sub(
        lambda match: match[0] if "".join(match.groups()).isascii() else " " * len(match[0]), prompt
    )
    stray, last_pair = _stray_brackets(text)
    harmless = _harmless_places(text) if stray else set()
    due = [place for place in stray if place not in harmless or place < last_pair]
    if not due:
        return
    place = due[0]
    if text[place] == "(":
        shown = prompt[place : place + _BRACKETS_SHOWN]
        problem, escape = "is never closed", r"\("
    else:
        shown = prompt[max(0, place + 1 - _BRACKETS_SHOWN) : place + 1]
        problem, escape = "was never opened", r"\)"
    lost = ", and brackets after it may lose their weight" if place < last_pair else ""
    yield (
        f"the {text[place]} in {shown.strip()!r} {problem}: it is plain text{lost}; "
        f"close the brackets, or write {escape} for a bracket in the text"
    )


def _stray_brackets(text: str) -> tuple[list[int], int]:
    """The places of brackets without a partner, and of the last pair around a word (or -1)."""
    opened: list[int] = []
    stray: list[int] = []
    last_pair = -1
    for match in _BRACKET.finditer(text):
        place = match.start()
        if match[0] == "(":
            opened.append(place)
        elif match[0] == ")" and opened:
            start = opened.pop()
            if start > last_pair and _WORD.search(text, start, place):
                last_pair = start
        elif match[0] == ")":
            stray.append(place)
    return sorted([*stray, *opened]), last_pair


def _harmless_places(text: str) -> set[int]:
    r"""Places in emoticons and numbers of points: `;)`, `1)`, and `\(^o^)/` with its escape."""
    places: set[int] = set()
    for match in _TOKEN.finditer(text):
        token = match[0]
        if len(token) <= _MAX_EMOTICON and (
            _EMOTICON.fullmatch(token) or (re.search(r"\\[()]", token) and not _WORD.search(token))
        ):
            places.update(range(*match.span()))
    return places

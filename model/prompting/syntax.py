"""Finds syntax in a prompt that has no effect here, though it looks as if it had.

Each function yields one text per finding: what is written and what to write instead.
"""

import re
from collections.abc import Callable, Iterator

from model.prompt_grammar import MAX_WEIGHT

_SHOWN_CHARS = 60

# All patterns take linear time: quantifiers are bounded or stop where a match may begin.
_KEYWORD = (
    r"(?<![\"'“‘])(?:(?<![A-Z]{{2}}[ \t])|(?<=\bBREAK[ \t])|(?={0}\s+(?![A-Z]{{2}})))"
    r"\b{0}\b(?![ \t](?!BREAK\b)[A-Z]{{2}})"
)
"""A word in capitals that is neither quoted nor part of a title in capitals: `PRISON BREAK`."""

_OPTION = r"(?:\[[^<>\]]*\])"


def _angle(names: str, rest: str) -> str:
    """The pattern of a tag in angle brackets, in any case and width: `<lora:x>`, `＜LORA:x＞`."""
    return rf"(?i:[<＜]\s{{0,3}}(?:{names})\s{{0,3}}{rest}[>＞])"


_PLAIN = {
    _KEYWORD.format("BREAK"): "{0} is plain text; a prompt is never split",
    _KEYWORD.format("AND"): "{0} is plain text; prompts are not combined",
    r"(?i:[<＜]\s{0,3}(?:lora|lyco|hypernet):\w)(?![^<>＜＞]*[>＞])": (
        "{0} is plain text; use the field `loras`"
    ),
    r"\bAND_(?:PERP|SALT|TOPK)\b": "{0} is plain text; prompts are not combined",
    r"\b(?:COUPLE|I?MASK|AREA|FEATHER)\(": "{0} is plain text; an image has no regions",
    r"\bADD(?:COL|ROW|COMM|BASE)\b": "{0} is plain text; an image has no regions",
    _angle(
        "lora|lyco|hypernet|locon|loha|lokr|dora", "[:：][^<>＜＞]*"
    ): "{0} is plain text; use the field `loras`",
    _angle("embed|embedding", "[:：][^<>＜＞]*"): "{0} is plain text; embeddings are not supported",
    _angle("random|wildcard|wc|alternate|alt|fromto|repeat", f"{_OPTION}?[:：][^<>＜＞]*"): (
        "{0} is plain text; write the words themselves"
    ),
    _angle("segment|object|region|clear|extend", f"{_OPTION}?[:：][^<>＜＞]*"): (
        "{0} is plain text; an image has no regions"
    ),
    _angle(
        "preset|p|param|setvar|var|setmacro|macro|trigger|comment|break",
        f"{_OPTION}?(?:[:：][^<>＜＞]*)?",
    ): "{0} is plain text",
    r"(?i:\bnegative[ _-]prompt\s?[:：])": "{0} is plain text; use the field `negative_prompt`",
    r"(?m:^Steps: \d{1,4}, [A-Z]\w{0,20})": "{0} is plain text; settings are fields of the request",
    r"\bembedding:[^\s,:()]+": "{0} is plain text; embeddings are not supported",
    r"(?<!\w)__(?=[*~]{0,2}/?[^\W_])[\w*~./-]{0,80}[\w*]__(?!\w)": (
        "{0} is plain text; nothing is chosen from a list"
    ),
    r"(?<!\\)\$\{[^{}]*\}": "{0} is plain text; there are no variables",
    r"(?<![\w.:])(-?(?:\d{1,2}(?:\.\d{1,3})?|\.\d{1,3}))::(?=\s{0,9}\w)": (
        "{0} does not set a weight; write (words:{1})"
    ),
    r"(?<!\\)\)(\d\.\d{1,3})(?=[\s,)]|$)": "{0} does not set a weight; write (words:{1})",
    r"(?<=\w)::(-?\d(?:\.\d{1,2})?)(?=[\s,]|$)": "{0} does not set a weight; write (words:{1})",
    r"(?<!\\)\):(\d\.\d{1,3})(?=[,\n]|$)": "{0} does not set a weight; write (words:{1})",
    r"(?<=\w):\s?[\"'“](\d\.\d{1,2})[\"'”]\s?\)": "{0} does not set a weight; write (words:{1})",
    r"(?<=\w\w):([01]\.\d{1,2}):\d(?:\.\d{1,2})?\s?\)": (
        "{0} has two numbers, and only the last is a weight; write (words:{1})"
    ),
    r"(?<!\\)\)\+{1,9}(?=[\s,)]|$)": "{0} does not strengthen; write (words:1.1)",
    r"(?<!\\)\)-{1,9}(?=[,)]|$)": "{0} does not weaken; write (words:0.9)",
    r"(?i:(?<![\w+.-])(?!notepad)([^\W\d_]{3,40}|\"[^\"\n]{1,80}\")\+{2,9}(?=[\s,)]|$))": (
        "{0} does not strengthen; write ({1}:1.2)"
    ),
    r"(?<![\w+.-])([^\W\d_]{3,40}|\"[^\"\n]{1,80}\")-{2,9}(?=[,)]|$)": (
        "{0} does not weaken; write ({1}:0.8)"
    ),
    r"[\"')]\s?\.(?:blend|and|swap)\(|\w\.swap\(": "{0} is plain text; prompts are not combined",
    r"(?<!\S)--(?:no(?!\s+(?:one|more|longer)\b)|ar|aspect|stylize|chaos|niji|quality|seed|iw|weird"
    r"|tile|sref|cref|style|[cvnwhdlsq])(?=\s+\S|$)": (
        "{0} is plain text; options are fields of the request"
    ),
    r"\|\|[^|\n]{1,80}(?:\|[^|\n]{1,80}){1,20}\|\|": (
        "{0} is not replaced by one of its choices; write one of them"
    ),
}
"""Patterns of single constructs; the advice shows the match and its groups."""

_HINT = re.compile(
    r"BREAK|AND|ADD|[<＜]|embedding:|__|\$\{|::|\)[\d+-]|\+\+|--|\.(?:blend|and|swap)\(|\|\|"
    r"|(?i:negative.prompt)|Steps:|\):|:\d\.\d|:\s?[\"'“]|COUPLE|MASK|AREA|FEATHER"
)
"""What each of these patterns contains. Most prompts contain none, which is much faster to see."""

_NUMBER = r"[-+−–]?[\d.,_]{1,8}[%fF]?"
_BAD_WEIGHT = re.compile(
    rf"(?:(?<![\d:]):\s{{0,3}}({_NUMBER})|(?<=[^\W\d_])[=;]\s{{0,3}}(\d\.\d{{1,2}}))\s{{0,3}}\)"
    r"|(?<=[^\W\d_][^\W\d_]):\s{0,3}\)|(?<=\([abe-nq-wyzABE-NQ-WYZ]):\s{0,3}\)"
)
"""The end of a bracket whose weight is not a number; `(D:)` is an emoticon."""

_BARE_NUMBER = re.compile(r":(0\.\d{1,2}|1\.(?:[1-9]5?|05))\s{0,9}(?=[,\n]|$)")
"""A number that is rarely anything but a weight, unlike that of `evangelion:2.22`."""

_BARE_WEIGHT = re.compile(
    r"(?:^|(?<=[,(\n]))\s{0,9}([^\s,:()\[\]{}<>][^,:()\[\]{}<>\n]{0,80})" + _BARE_NUMBER.pattern
)

_RATIO = re.compile(r"(?:ratio|version|ver|scale|model|aperture|score|\b\w|\d|\W)$", re.IGNORECASE)
"""The end of words that are followed by a number of their own: `aspect ratio:1.5`, `f:1.8`."""

_SQUARE_ADVICE = "weaken; write (words:0.9)"
_CURLY_ADVICE = "strengthen; write (words:1.05)"
_ALONE = (
    ("[", "]", re.compile(r"(?:^|(?<=[\s,(]))\[{1,20}(?=\w)[^\[\],\n]{0,60}"), _SQUARE_ADVICE),
    ("]", "[", re.compile(r"\w{2,40}\]{1,20}(?=[\s,]|$)"), _SQUARE_ADVICE),
    ("{", "}", re.compile(r"(?:^|(?<=[\s,(]))\{{1,20}(?=\w)[^{},\n]{0,60}"), _CURLY_ADVICE),
    ("}", "{", re.compile(r"\w{2,40}\}{1,20}(?=[\s,]|$)"), _CURLY_ADVICE),
)
"""A bracket, its partner that is nowhere in the prompt, where it is found, and the advice."""

_SQUARE = re.compile(r"(?<![\\\[])(\[{1,20})(?=[^\[\]]*[^\W_])([^\[\]]*)\]{1,20}")
_CURLY = re.compile(r"(?<![\\{$])(\{{1,20})(?=[^{}]*[^\W_])([^{}]*)\}{1,20}")
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
_WIDE_SQUARE = re.compile(
    r"(?:^|(?<=[,，\n]))\s{0,9}([［｛])(?=[^］｝]{0,80}[A-Za-z])([ -~]{1,80})[］｝]"
    r"\s{0,9}(?=[,，\n]|$)"
)
_WIDE_WEIGHT = re.compile(
    r"[［｛【〔〈《]([^［｛【〔〈《］｝】〕〉》\n]{1,80})[:：]\s?(\d(?:[.．]\d{1,2})?)[］｝】〕〉》]"
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
    for pattern, advice in _PLAIN.items() if _HINT.search(prompt) else ():
        if match := re.search(pattern, prompt):
            yield advice.format(shorten(match[0]), *match.groups())
    rest = _ANGLE_OPTION.sub("", prompt)
    if "[" in rest:
        yield from _first_of_each(_SQUARE, _square_advice, rest)
    if "{" in rest:
        yield from _first_of_each(_CURLY, _curly_advice, rest)
    yield from _find_open_brackets(rest)
    yield from _find_bad_weights(prompt)


def _find_open_brackets(prompt: str) -> Iterator[str]:
    """Find square and curly brackets that have no partner at all."""
    for bracket, partner, pattern, advice in _ALONE:
        if bracket in prompt and partner not in prompt and (match := pattern.search(prompt)):
            yield f"{shorten(match[0])} does not {advice}"


def _find_bad_weights(prompt: str) -> Iterator[str]:
    """Find weights that are not numbers, and weights without brackets."""
    patterns = []
    if ")" in prompt and any(sign in prompt for sign in ":;="):
        patterns.append((_BAD_WEIGHT, _bad_weight_advice))
    if _BARE_NUMBER.search(prompt):
        patterns.append((_BARE_WEIGHT, _bare_weight_advice))
    stray: set[int] | None = None
    for pattern, advice in patterns:
        for match in pattern.finditer(prompt):
            if found := advice(match):
                if stray is None:
                    stray = set(_stray_brackets(prompt)[0])
                # `find_unbalanced_brackets` covers brackets without a partner.
                if not stray & {match.start() - 1, match.end() - 1}:
                    yield found
                    break


def _bad_weight_advice(match: re.Match[str]) -> str | None:
    if match[1] and _is_float(match[1]):
        return None
    meant = _meant_number(match[1] or match[2] or "")
    return f"{match[0].strip()} does not set a weight; write (words:{meant})"


def _bare_weight_advice(match: re.Match[str]) -> str | None:
    if _RATIO.search(match[1]):
        return None
    found = shorten(match[0].strip())
    return f"{found} does not set a weight; write ({shorten(match[1])}:{match[2]})"


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _meant_number(text: str) -> str:
    """The weight that was probably meant by a text that is not a number, or an example."""
    plain = re.match(r"[-+]?\d{1,3}(?:\.\d{1,3})?", re.sub("[−–]", "-", text).replace(",", "."))
    if plain is None:
        return "1.2"
    value = float(plain[0]) / (100 if text.endswith("%") else 1)
    return f"{value:g}" if abs(value) <= MAX_WEIGHT else "1.2"


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
    if prompt.isascii():  # most are, and these patterns are slow
        return
    for pattern in (_WEIGHT, _DOUBLED, _WHOLE_PART):
        for match in pattern.finditer(prompt):
            if not _is_read(match):
                found = match[0].strip()
                meant = found.translate(_HALF_WIDTH)
                yield f"{shorten(found)} has no weight; write {shorten(meant)}"
                return
    if weighted := _WIDE_WEIGHT.search(prompt):
        weight = weighted[2].translate(_HALF_WIDTH)
        yield f"{shorten(weighted[0])} has no weight; write ({shorten(weighted[1])}:{weight})"
    elif whole := _WIDE_SQUARE.search(prompt):
        weight = "0.9" if whole[1] == "［" else "1.05"
        yield f"{shorten(whole[0].strip())} has no weight; write ({shorten(whole[2])}:{weight})"


def _is_read(match: re.Match[str]) -> bool:
    """Whether the brackets that a pattern found work here, though their digits may be odd."""
    if match.re is not _WEIGHT:
        return "".join(match.groups()).isascii()
    opened, colon, number, closed = match.groups()
    return f"{opened}{colon}{closed}".isascii() and (number.isascii() or _is_float(number))


def find_unbalanced_brackets(prompt: str) -> Iterator[str]:
    """Find the first bracket without a partner, unless it is an emoticon or numbers a point.

    An emoticon counts as well if brackets follow it, because they may lose their weight.
    """
    # `find_full_width_brackets` covers these.
    text = _WEIGHT.sub(lambda match: match[0] if _is_read(match) else " " * len(match[0]), prompt)
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

"""Says again, in plain words, ages that a text glues to other words or writes with signs.

The matcher finds an age between word boundaries, with digits read either as numbers or as letters,
and masks only in single words. So `12yonude`, `13-year-0ld`, `<18`, `girl, 14` and `f*urteen years
old` are said again for it. Every step takes linear time.
"""

import re
from collections.abc import Iterator
from itertools import chain

from model.policy.ages.languages import ADULT
from model.policy.ages.mistakes import BESIDE, beside, without_mistakes
from model.policy.ages.spelled import may_be_disguised, undisguised
from model.policy.folding import COMMA

_NUMBER = r"([0-9](?<!\d.)(?<!\d\..)(?:(?<=1)[0-7])?)(?!\d)"
"""An age. It begins with a digit, not with what is before it: that is many times as fast."""

_YEARS_OLD = r"y[e3€*#?]?[a4@*#?]?r[s5$z]?[\W_]{0,3}[o0*#?][l1|!*#?]d(?!er|est)"
_NO_AGE = r"u(?!n)|g[ua]|gi(?!rl)|shi|ts|ko|rk|lo|yo|d[ae]"
"""What follows `yo` in `4you`, `2yoga` and Japanese names."""

_YEARS_ELSEWHERE = r"anos|anni(?!v)|jahre(?:alt)?|jaar(?:oud)?|tahun|yasinda"
_WORDS = (
    "thirteen|fourteen|fifteen|sixteen|seventeen|ten|eleven|twelve|"
    "two|three|four|five|six|seven|eight|nine"
)
_NUMBER_WORD = (
    rf"([efnst](?<!ty.)(?<!ty[\W_].)(?<!hundred.)"
    rf"(?:{'|'.join(f'(?<={word[0]}){word[1:]}' for word in _WORDS.split('|'))}))"
)
"""Such a word, but not the end of a higher number."""

_LOADED = "nude|naked|nsfw|sex|porn|hentai|lewd|xxx|girl|boy"
"""What makes an age of `nudeage14`; `vintage14` is none."""

_PATTERNS = tuple(
    (needed, re.compile(pattern), again)
    for needed, pattern, again in (
        # 14yearsoldnaked, nude13yrsold, 13-year-0ld, 9 y€ars old; 14yro, 13 years ol
        ("d", rf"{_NUMBER}[\W_]{{0,3}}{_YEARS_OLD}", " {1} years old "),
        ("r", rf"{_NUMBER}[\W_]?(?:yro|y(?:ea)?rs? ?ol)(?![^\W_])", " {1} years old "),
        # 12yonude, girl14yonude, 12 yonude, 14anosnua
        ("y", rf"{_NUMBER}y[*#?%&./]?o(?=[a-z])(?!{_NO_AGE})", " {1} years old "),
        # 12*o; 14 yaers old, 14 years odl
        (
            "o",
            rf"{_NUMBER}(?:[*#?%&]o|[\W_]{{0,3}}y(?:(?!e?a?rs?[\W_])[aersw]{{1,5}}[\W_]{{1,3}}"
            r"o[l1|]?d?|[aers]{1,5}[\W_]{1,3}(?:odl|lod|ol[fs]|[pik]ld|okd)))(?![^\W_])",
            " {1} years old ",
        ),
        # 14 a*s
        ("s", rf"{_NUMBER}[\s_-]a[*#?%&]s(?![^\W_])", " {1} ans "),
        ("yo", rf"{_NUMBER}[\s_-]yo(?={_LOADED})", " {1} years old "),
        ("a", rf"{_NUMBER}({_YEARS_ELSEWHERE})(?=[a-z])", " {1} {2} "),
        # nudefourteenyearold, twelveyonude, nudetwelveyo
        ("old", rf"{_NUMBER_WORD}y(?:ea)?rs?old(?!er|est)", " {1} years old "),
        ("yo", rf"{_NUMBER_WORD}yo(?={_LOADED})", " {1} years old "),
        ("yo", rf"({_LOADED})({_WORDS})yo(?![^\W_])", "{1} {2} years old "),
        # nudeage14, nudeunder18, nudeundereighteen, 7thgradernude
        ("age", rf"({_LOADED})aged?[\W_]?(\d{{1,2}})(?!\d)", "{1} age {2} "),
        ("e", rf"({_LOADED})(under|below)[\W_]?(\d\d|eighteen|{_WORDS})(?!\d)", "{1} {2} {3} "),
        ("grade", rf"{_NUMBER}(st|nd|rd|th)(grader?)(?=[a-z])", " {1}{2} {3} "),
        # <18, <=17, <eighteen
        ("<", rf"<\s?=?\s?(eighteen|{_WORDS})(?![^\W_])", " under {1} "),
        ("<", r"<\s?=?\s?(18)(?!\s?(?:[\d%°:/]|[.,]\d|[cmk]?m\b|[pm]x\b|[kmg]b\b))", " under {1} "),
        ("<", r"(^|age)\s*<\s?=?\s?(1[2-7])(?=\s?(?:y|$))", "{1} under {2} "),
        # 13 to 17 years; 7º ano, 3º ESO; 14 female
        ("rs", rf"^\s*{_NUMBER} ?(?:to|or|and|[-–~/]) ?\d+ (?:yea|y)rs\s*$", " {1} years old "),
        ("o ", r"^\s*([3-9])o (?:ano|eso)\s*$", " grade {1} "),
        ("o ", r"alum?n[ao]s? d[eo] ([1-9])o (?:ano|de (?:la )?eso|eso)(?![^\W_])", " grade {1} "),
        ("male", r"^\s*(1[2-7]) (?:fe)?male\s*$", " age {1} "),
        # a mask at the end of a word of two letters
        ("幼*", r"幼\*", "幼女"),
        ("ロ*", r"(?<![ァ-ヴー])ロ\*(?![ァ-ヴー])", "ロリ"),
    )
)
"""How ages are written within a tag, and what is said again.

The first text is in every such age; to look for it first is faster.
"""

_SIGN_IN_WORD = re.compile(r"[013457*#?%&](?<=[^\W\d_].)(?=[^\W\d_])")
_SIGN_LETTERS = dict(zip("013457*#?%&", "oieasteeeee", strict=True))
"""A mask is read as an e: most numbers have one, and another vowel is a mistake that is known."""

_GLUED_YEARS = ("rold", "rsold")

# A class of all digits that are in a folded text is faster than \d.
_AFTER_A_DIGIT = re.compile(
    r"[0-9](?:[\W_]{0,3}y|[*#?%&]o|[\s_-]a[*#?%&]s|o (?:ano|eso|de )|(?:st|nd|rd|th)grade"
    rf"| (?:fe)?male| ?(?:to|or|and|[-–~/]) ?\d+ y|{_YEARS_ELSEWHERE})"
)
_HINTS = ("<", "rold", "rsold", "age", "under", "below", "幼*", "ロ*")
_HINTS_WITH_YO = ("eyo", "nyo", "oyo", "xyo", "ryo")
"""One of them is in every age that has no digit followed by such a word."""

_BARE = re.compile(r"[0-9][\s.!]*(?:[,;、\n]|$)")
_TAG_ENDS = re.compile(r"[,;、\n]")
_BARE_AGES = frozenset((*map(str, range(4, ADULT)), *_WORDS.split("|")[:5]))
"""Lower ones number things, and lower words are names."""

_PERSONS = frozenset(("girl", "boy", "female", "male"))
_ENDS_WITH_PERSON = re.compile(
    r"\b(?:1 ?)?(?:girl|boy|female|male|daughter|son|sister|brother|niece|nephew|student|she|he)$"
)

_MIN_SAID = 500
"""So many letters are said again, and an eighth of the text: more would multiply it."""


def with_ages_said_again(folded: str) -> str:
    """A folded text, and after it the ages that are written in such a way."""
    texts, left = {folded: None}, _MIN_SAID + len(folded) // 8
    disguised, lettered = may_be_disguised(folded), folded
    if disguised and any(map(_as_letters(folded).__contains__, _GLUED_YEARS)):
        lettered = f"{folded},{_SIGN_IN_WORD.sub(_as_letter, folded)}"
    # Disguised words come last: not each of them is an age, so many would hide one.
    for said in chain(
        _bare(folded),
        _in_tags(lettered),
        without_mistakes(lettered),
        undisguised(folded) if disguised else (),
    ):
        if said not in texts:
            left -= len(said)
            if left < 0:
                break
            texts[said] = None
    return ", ".join(texts)


def _in_tags(plain: str) -> Iterator[str]:
    """Ages that a tag glues to other words or writes with signs: in words, with what is beside."""
    if _may_hold_ages(plain):
        for tag in filter(_may_hold_ages, dict.fromkeys(COMMA.split(plain))):
            for needed, pattern, again in _PATTERNS:
                if needed in tag:
                    seen = set()
                    for match in pattern.finditer(tag):
                        start, end = match.span()
                        around = tag[max(0, start - BESIDE) : end + BESIDE]
                        if around not in seen:
                            seen.add(around)
                            yield from _said(match, again.format(match[0], *match.groups()))


def _as_letters(plain: str) -> str:
    for digit, letter in _SIGN_LETTERS.items():
        plain = plain.replace(digit, letter)
    return plain


def _as_letter(digit: re.Match[str]) -> str:
    return _SIGN_LETTERS[digit[0]]


def _said(match: re.Match[str], plain: str) -> Iterator[str]:
    """A match in plain words between the words beside it, if that says anything new."""
    said, written = (beside(match.string, *match.span(), text) for text in (plain, match[0]))
    if said.split() != written.split():
        yield said


def _may_hold_ages(plain: str) -> bool:
    return (
        any(map(plain.__contains__, _HINTS))
        or ("yo" in plain and any(map(plain.__contains__, _HINTS_WITH_YO)))
        or bool(_AFTER_A_DIGIT.search(plain))
    )


def _bare(plain: str) -> Iterator[str]:
    """Numbers that are a tag beside one for a person: "girl, 14"; "14, 1girl" may be a row."""
    if "teen" in plain or _BARE.search(plain):
        tags = ["", *(tag.strip(" .!") for tag in _TAG_ENDS.split(plain)), ""]
        for place, tag in enumerate(tags):
            if tag in _BARE_AGES and (
                _ENDS_WITH_PERSON.search(tags[place - 1][-10:]) or tags[place + 1] in _PERSONS
            ):
                yield f"age {tag}"

"""Prompts lose what nobody sees, the request says so, and everything meaningful remains."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from model.card import load_card
from model.card_request import request_type
from model.prompt_grammar import clean_prompt, drop_invisible
from model.resolved_request import ResolvedRequest, resolve_request
from tests.support.growth import grows_linearly

CARD = load_card("kirazuri-tiny")
REQUEST = request_type(CARD)
SAME = {
    "1girl, hat ": "blanks around",
    "\n 1girl, hat": "blanks around",
    "1girl, hat\n": "blanks around",
    "1girl, hat\r\n": r"line ends other than \n",
    "1girl, hat\u00a0\u3000": "blanks around",
    "\ufeff1girl, hat": "U+FEFF byte order mark",
    "1girl,\u200b hat\u200b": "2 times U+200B zero width space",
    "1girl,\u2060 hat": "U+2060 word joiner",
    "1\u00adgirl, hat": "U+00AD soft hyphen",
    "1girl\u200d, hat": "U+200D zero width joiner",
    "1girl\u200c, hat": "U+200C zero width non-joiner",
    "\u202a1girl, hat\u202c": "U+202A left-to-right embedding",
    "1girl, hat\u200e\u200f": "U+200E left-to-right mark",
    "1girl, hat\ufe0f": "U+FE0F variation selector-16",
    "1girl, hat\U000e0101": "U+E0101 variation selector-18",
    "1girl, \U000e0063\U000e0061\U000e0074hat": "U+E0063 tag latin small letter c",
    "1girl, h\u180eat\u034f": "U+180E mongolian vowel separator",
    "1girl, hat\u3164": "U+3164 hangul filler",
    "1girl,\u2800 hat": "U+2800 braille pattern blank",
    "1girl, h\u115fat": "U+115F hangul choseong filler",
    "1girl, hat\u1160": "U+1160 hangul jungseong filler",
    "1girl, hat\u17b4": "U+17B4 khmer vowel inherent aq",
    "1girl, hat\ufffc": "U+FFFC object replacement character",
    "1girl, h\ufffeat": "U+FFFE",
    "1girl, h\U0001fffeat": "U+1FFFE",
    "1girl, hat\ufdd0": "U+FDD0",
    "\ufeff\u200b \r\n1girl,\u2060 hat \u200b\r\n": "U+200B",
}  # fmt: skip
"""Texts that look like `1girl, hat`, with a part of the warning."""

MEANINGFUL = [
    "1girl, hat",
    "1girl,\n\nhat,  cap,\tshoes",
    r"oil painting \(medium\), (red hair:1.2), \\",
    "夜の街、 雨　傘",
    "👩\u200d💻, 👨\u200d👩\u200d👧\u200d👦, 🏳\ufe0f\u200d🌈, 🧑🏽\u200d🚀, ❤\ufe0f\u200d🔥,",
    "🏃\u200d♀\ufe0f\u200d➡\ufe0f",
    "❤\ufe0f, ❤\ufe0e, 1\ufe0f\u20e3, #\ufe0f\u20e3",
    "☺\ufe0f, 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "می\u200cخواهم, ه\u200d",
    "क\u094d\u200dष, क\u094d\u200cष, ශ\u0dca\u200dරී, അവന\u0d4d\u200c",
    "葛\U000e0100城, 辻\ufe00",
    "ᠨ\u180eᠠ, ᠠ\u180b",
    "א\u034f\u05b4",
    "\u115f\u1161, \u1100\u1160\u11ab",
    "⠓\u2800\u2800⠁, ⠓\u2800",
]  # fmt: skip


def resolved(**fields: Any) -> ResolvedRequest:
    return resolve_request(REQUEST(**fields), CARD, seed=1)


def test_prompts_that_look_the_same_resolve_to_the_same_request() -> None:
    expected = resolved(prompt="1girl, hat", negative_prompt="1girl, hat")
    wrong = {}
    for text, part in SAME.items():
        request = REQUEST(prompt=text, negative_prompt=text)
        warning = request.dropped_warning
        detail = warning.detail if warning else ""
        is_told = detail.startswith("prompt: dropped ") and "; negative_prompt: dropped " in detail
        is_same = resolve_request(request, CARD, seed=1) == expected
        if not (is_same and is_told and detail.count(part) == 2 and detail.isprintable()):
            wrong[text] = detail
    assert wrong == {}


def test_meaningful_characters_stay_and_nothing_is_reported() -> None:
    wrong = []
    for text in MEANINGFUL:
        request = REQUEST(prompt=text, negative_prompt=text)
        if {request.prompt, request.negative_prompt} != {text} or request.dropped_warning:
            wrong.append((text, request.prompt, request.dropped_warning))
    assert wrong == []


DEFAULT_IGNORABLE = (
    "00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202E 2060-206F 3164 FE00-FE0F "
    "FEFF FFA0 FFF0-FFF8 1BCA0-1BCA3 1D173-1D17A E0000-E0FFF"
)
"""The property of this name in Unicode 16."""


def test_every_character_without_a_shape_is_dropped_from_words() -> None:
    kept = []
    for part in DEFAULT_IGNORABLE.split():
        first, _, last = part.partition("-")
        for code in range(int(first, 16), int(last or first, 16) + 1):
            text = f"1girl, h{chr(code)}at"
            if drop_invisible(text).text != "1girl, hat":
                kept.append(f"{code:04X}")
    assert kept == []


def test_lines_remain() -> None:
    cleaned = clean_prompt("1girl, \r\nhat\t\rcap\u2028\r\n\r\nshoes")
    assert cleaned.text == "1girl,\nhat\ncap\n\n\nshoes"


def test_tags_lose_invisible_characters() -> None:
    tags = {"general": ["\ufeffhat", "c\u200bap", "👩\u200d💻"], "artist": ["\u200bwlop"]}
    request = REQUEST.model_validate({"tags": tags})
    expected = resolved(tags={"general": ["hat", "cap", "👩\u200d💻"], "artist": ["wlop"]})
    assert resolve_request(request, CARD, seed=1) == expected
    assert request.dropped_warning is not None
    assert request.dropped_warning.detail == (
        "tags: dropped 2 times U+200B zero width space, U+FEFF byte order mark"
    )


def test_an_invisible_mark_cannot_hide_a_weight_from_its_check() -> None:
    (error,) = _errors({"prompt": "(hat:1\u200b00)"})
    assert error["type"] == "prompt_brackets"
    (error,) = _errors({"tags": {"general": ["\u200b"]}})
    assert "blank" in error["msg"]


def _errors(fields: dict[str, Any]) -> list[Any]:
    try:
        REQUEST.model_validate(fields)
    except ValueError as exc:
        return exc.errors()  # type: ignore[attr-defined,no-any-return]
    return []


def test_a_blank_prompt_is_one_blank_and_a_blank_negative_prompt_is_empty() -> None:
    for text in (" ", "  ", "\r\n", "\t"):
        request = REQUEST(prompt=text, negative_prompt=text)
        assert (request.prompt, request.negative_prompt) == (" ", ""), text
    assert REQUEST(prompt=" ", negative_prompt=" ").dropped_warning is None
    tagged = REQUEST.model_validate({"prompt": " ", "tags": {"general": ["hat"]}})
    assert resolve_request(tagged, CARD, seed=1).prompt == "hat"


def test_equal_requests_have_equal_json() -> None:
    """Idempotency keys compare the JSON of bodies."""
    clean = REQUEST(prompt="1girl", negative_prompt="hat")
    marked = REQUEST(prompt="1girl\r\n", negative_prompt="\ufeffhat")
    assert marked.model_dump_json() == clean.model_dump_json()


def test_many_kinds_of_marks_are_counted() -> None:
    dropped = drop_invisible("a" + "".join(map(chr, range(0x2060, 0x206A)))).dropped
    assert len(dropped) == 6
    assert dropped[-1] == "5 more kinds of invisible characters"


@settings(deadline=None)
@given(
    st.text(
        alphabet="a1 ,(:)\r\n\ufeff\u200b\u200c\u200d\ufe0f\u20e3\u034f\u0301\u180e\u180bᠠ\u094d"
        "کक👩🏴🏽♀\U000e0067\U000e007f\U000e0100夜\u2028\u3000",
        max_size=12,
    )
)
def test_a_clean_prompt_is_not_changed_again(text: str) -> None:
    clean = clean_prompt(text)
    assert clean_prompt(clean.text) == (clean.text, ())
    visible = [char for char in text if char in "a1,(:)夜👩♀ᠠ"]
    assert [char for char in clean.text if char in "a1,(:)夜👩♀ᠠ"] == visible


def test_hostile_texts_take_linear_time() -> None:
    for piece in ("\u200b", "\u200d", "a\u200b", "👩\u200d", "🏴\U000e0067", " \n", "\r", " a"):
        assert grows_linearly(lambda text: clean_prompt.__wrapped__(text), piece), piece

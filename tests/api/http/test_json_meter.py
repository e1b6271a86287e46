"""The meter counts what a JSON text costs, however it is written and cut into pieces."""

import itertools
import json
import string
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http import request_body
from api.http.errors import BodyRefused
from api.http.request_body import MAX_JSON_DEPTH, MAX_JSON_VALUES, JsonMeter

PIECE = 1 << 16

TEXTS = st.text(st.sampled_from('ab"\\/[]{},:\n é\N{GRINNING FACE}'), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)


def values_in(value: Any) -> int:
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    return 1 + sum(map(values_in, inside))


def depth_of(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, inside), default=0)


def empty_in(value: Any) -> int:
    """Empty lists and objects: the meter takes each for one with a value."""
    if not isinstance(value, list | dict):
        return 0
    inside = value.values() if isinstance(value, dict) else value
    return (not value) + sum(map(empty_in, inside))


def meter(text: bytes, cuts: Iterable[int] = ()) -> JsonMeter:
    """A meter that was fed the text, cut at these places."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    fed = JsonMeter()
    for start, end in itertools.pairwise(places):
        fed.feed(text[start:end])
    return fed


@given(
    value=JSON,
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    indent=st.none() | st.just(2),
    is_ascii=st.booleans(),
)
def test_counts_values_and_levels_exactly(
    value: Any, cuts: list[int], indent: int | None, is_ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_body, "MAX_JSON_VALUES", values_in(value) + empty_in(value))
        patch.setattr(request_body, "MAX_JSON_DEPTH", depth_of(value))
        meter(text, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_body, "MAX_JSON_VALUES", values_in(value) - 1)
        with pytest.raises(BodyRefused, match="values"):
            meter(text, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_body, "MAX_JSON_DEPTH", depth_of(value) - 1)
        with pytest.raises(BodyRefused, match="levels"):
            meter(text + b"[", cuts)


HOSTILE = {
    "unknown keys": b"{" + b",".join(b'"k%d":1' % n for n in range(300_000)) + b"}",
    "one key again and again": b"{" + b'"a":1,' * 300_000 + b'"a":1}',
    "empty objects": b'{"loras":[' + b"{}," * 300_000 + b"{}]}",
    "empty lists without commas": b"[]" * 300_000,
    "numbers": b"[" + b"1," * 300_000 + b"1]",
    "numbers without commas": b"1 " * 300_000,
    "one number": b'{"seed":' + b"9" * 600_000 + b"}",
    "one fraction": b'{"seed":0.' + b"3" * 600_000 + b"}",
    "many long numbers": b"[" + b",".join([b"9" * 4000] * 200) + b"]",
    "strings without commas": b'""' * 300_000,
    "colons": b":" * 600_000,
    "deep lists": b"[" * 300_000,
    "deep objects": b'{"a":' * 300_000,
    "closing brackets": b"]" * 600_000,
    "escapes": b'"' + rb"\u0041" * 600_000,
    "escaped quotes": b'"' + rb"\"" * 600_000,
    "escaped backslashes": b'"' + rb"\\" * 600_000,
    "letters outside of ASCII": b'"' + "\N{GRINNING FACE}".encode() * 600_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_with_too_much_is_refused_after_its_first_part(name: str) -> None:
    """What is read of it does not grow with it: the same at twice the length."""
    seen = []
    for times in (1, 2):
        fed = JsonMeter()
        with pytest.raises(BodyRefused) as caught:
            fed.feed(HOSTILE[name] * times)
        assert caught.value.status_code == 422
        assert caught.value.limit is not None
        assert str(caught.value.limit) in caught.value.detail
        seen.append(fed.bytes_seen)
    assert seen[0] == seen[1]
    has_large_limit = "escape" in name or "ASCII" in name
    assert seen[0] <= (6 * request_body.MAX_ESCAPES if has_large_limit else 6 * PIECE) + PIECE


@pytest.mark.parametrize(
    "text",
    [
        b'{"prompt": "\xed\xa0\x80"}',  # a lone surrogate
        b'{"prompt": "\xff"}',
        '{"prompt": "a"}'.encode("utf-16"),
        '{"prompt": "a"}'.encode("utf-16-le"),
        '{"prompt": "a"}'.encode("utf-32-be"),
        # In UTF-16 these signs contain bytes that look like quotes: they would hide brackets.
        '{"prompt": "\u2222\u225b"}'.encode("utf-16-le"),
    ],
)
def test_only_utf8_is_read(text: bytes) -> None:
    with pytest.raises(BodyRefused) as caught:
        meter(text)
    assert caught.value.status_code == 400
    assert "UTF-8" in caught.value.detail


def test_large_requests_of_clients_pass() -> None:
    image = (string.ascii_letters + string.digits + "+/") * 250_000
    settings = {f"setting_{number}": [number] for number in range(600)}
    tags = {"general": ["long hair"] * 100, "artist": ["wlop"] * 100}
    bodies = [
        {"prompt": "1girl", "init_image": image},
        {"prompt": "\N{GRINNING FACE}" * 10_000, "negative_prompt": '"\\' * 5_000},
        {"prompt": "x", "override_settings": settings},
        {"tags": tags, "loras": [{"name": "a", "weight": 1.0}] * 8},
    ]
    for body in bodies:
        meter(json.dumps(body, indent=4).encode(), [70_000, 9])
        meter(json.dumps(body, ensure_ascii=False).encode())
    escaped = json.dumps(bodies[0]).replace("/", "\\/").encode()  # as some clients write slashes
    assert escaped.count(b"\\") == 250_000
    meter(b"\xef\xbb\xbf" + escaped)
    assert MAX_JSON_VALUES >= 10_000
    assert MAX_JSON_DEPTH >= 50

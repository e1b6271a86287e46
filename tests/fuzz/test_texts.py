"""Random texts of clients are read or refused, without other errors."""

import asyncio
import ipaddress
import json
import math
import socket
from contextlib import suppress
from typing import Any, get_args

import pytest
from fastapi import Request
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.a1111.generation.request import parse_request
from api.a1111.generation.request_fields import ImageToImage, TextToImage
from api.auth import signed_urls
from api.http.errors import MalformedForm
from api.http.field_errors import field_errors
from api.middleware.authentication import _credentials
from api.openai.images.multipart import read_form
from api.openai.images.parameters import Parameters
from api.submit.advice import advise
from api.submit.context import parse_duration, parse_prefer_wait
from api.submit.dry_run import make_plan
from api.webhooks.schemas import submission_type
from api.webhooks.url_policy import UrlPolicy, url_problem
from model.card import TagGroup, load_card
from model.errors import PolicyBlocked, PromptError
from model.policy.policy import load_policy
from model.prompt_grammar import MAX_WEIGHT, parse_prompt, plain_text
from model.prompting.tokens import load_tokenizers
from model.rating import RATINGS
from model.resolved_request import resolve_request
from model.tags import Tags, assemble_prompt
from tests.fuzz.effort import fuzzed
from tests.fuzz.strategies import JSON, TEXTS
from worker.queue.eta import Eta
from worker.settings import Settings
from worker.telemetry.log_escaping import escape, escape_line

CARD = load_card("kirazuri-tiny")
TOKENIZERS = load_tokenizers(CARD, None)
REQUEST = submission_type(
    CARD, Settings(_env_file=None, webhook_secret="whsec_" + "c2VjcmV0" * 4), lambda: ["hat"]
)


@fuzzed
@given(TEXTS)
@example("(" * 300 + ")" * 300)
@example("(a:" * 20 + "1" + ")" * 20)
def test_a_prompt_has_finite_weights_or_is_refused(text: str) -> None:
    try:
        segments = parse_prompt(text)
    except PromptError:
        return
    assert all(math.isfinite(s.weight) and abs(s.weight) <= MAX_WEIGHT for s in segments)
    assert len(plain_text(text)) <= len(text)


@fuzzed
@given(
    st.dictionaries(st.sampled_from(list(REQUEST.model_fields)), JSON, max_size=4),
    TEXTS,
    st.sampled_from(["square", "128x128", None]),
)
def test_a_request_is_planned_or_every_wrong_field_is_named(
    fields: dict[str, Any], prompt: str, resolution: str | None
) -> None:
    body = {"prompt": prompt, "resolution": resolution, **fields}
    try:
        request = REQUEST.model_validate(body)
    except ValidationError as exc:
        errors = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
        found = field_errors(errors)
        assert found
        for wrong in found:
            assert wrong.pointer.isprintable() or wrong.pointer
            wrong.model_dump_json()  # lone surrogates are gone
        return
    assume(not request.init_image)
    resolved = resolve_request(request, CARD, seed=1, lora_hashes={"hat": "0" * 64})
    advice = advise(request, resolved, CARD, TOKENIZERS)
    plan = make_plan(resolved, advice, Eta(), seed=None)
    assert json.loads(plan.model_dump_json())["cost"] >= 0


@fuzzed
@given(st.dictionaries(st.sampled_from(get_args(TagGroup)), st.lists(TEXTS, max_size=6)))
def test_tags_stay_letters(groups: dict[str, list[str]]) -> None:
    try:
        tags = Tags.model_validate(groups)
    except ValidationError:
        return
    prompt = assemble_prompt(tags, CARD.prompting, "")
    segments = parse_prompt(prompt)
    assert all(segment.weight == 1 for segment in segments)


@fuzzed
@given(st.one_of(TEXTS, st.from_regex(r"wait ?= ?\"?[0-9]{0,30}\"?[,; ]?.{0,9}")))
@example("wait=" + "9" * 5000)
@example("wait=\u0661")
def test_the_preferred_wait_is_within_its_limit(text: str) -> None:
    seconds = parse_prefer_wait(text, 60)
    assert seconds is None or 0 <= seconds <= 60


@fuzzed
@given(st.one_of(TEXTS, st.from_regex(r"([0-9]{1,3}h)?([0-9]{1,5}m)?([0-9]{1,6}s?)?")))
@example("9" * 5000 + "s")
def test_a_span_is_at_most_a_day(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 1 <= seconds <= 86_400


# -- webhooks ------------------------------------------------------------------------------------

HOSTS = st.one_of(
    TEXTS,
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.from_regex(r"[0-9a-fx.]{1,20}", fullmatch=True),
    st.sampled_from(["localhost", "example.org", "xn--", "é.example", "a..b", "[::1%25eth0]"]),
)


@fuzzed
@given(
    st.sampled_from(["https://", "http://", "HTTPS://", "//", "", "file://", "https:/"]),
    st.sampled_from(["", "user@", "user:pass@", "@"]),
    HOSTS,
    st.sampled_from(["", ":443", ":0", ":99999", ":x", ":\u0661"]),
    TEXTS,
)
def test_a_webhook_url_is_allowed_or_not(
    scheme: str, user: str, host: str, port: str, path: str
) -> None:
    problem = url_problem(f"{scheme}{user}{host}{port}/{path}", UrlPolicy())
    if problem is None:
        assert scheme.lower() == "https://"
        assert ":" not in user


PRIVATE = st.one_of(
    *(
        st.ip_addresses(network=network)
        for network in (
            "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
            "100.64.0.0/10", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4",
        )
    )
)  # fmt: skip


def forms(address: ipaddress.IPv4Address) -> list[str]:
    """Spellings of an address that resolvers and NAT64 translators accept."""
    number, parts = int(address), str(address).split(".")
    high, low = number >> 16, number & 0xFFFF
    return [
        str(address), str(number), hex(number), f"0{number:o}", ".".join(map(hex, map(int, parts))),
        ".".join(f"0{int(part):o}" for part in parts), f"{parts[0]}.{number & 0xFFFFFF}",
        f"{address}.", f"[::ffff:{address}]", f"[::ffff:{high:x}:{low:x}]", f"[::{address}]",
        f"[64:ff9b::{high:x}:{low:x}]", f"[2002:{high:x}:{low:x}::1]",
        "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in str(address)),
    ]  # fmt: skip


@fuzzed
@given(PRIVATE)
def test_no_form_of_a_private_address_is_allowed(address: ipaddress.IPv4Address) -> None:
    for host in forms(address):
        assert url_problem(f"https://{host}/hook", UrlPolicy()), host


@fuzzed
@given(st.from_regex(r"[0-9a-fA-FxX.]{1,18}", fullmatch=True))
def test_hosts_that_resolve_to_private_addresses_are_not_allowed(host: str) -> None:
    try:
        address = ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return
    if not address.is_global:
        assert url_problem(f"https://{host}/hook", UrlPolicy())


# -- dialects and keys ---------------------------------------------------------------------------


@fuzzed
@given(
    st.sampled_from([TextToImage, ImageToImage]),
    st.dictionaries(
        st.sampled_from([*TextToImage.model_fields, *ImageToImage.model_fields, "unknown"]),
        JSON,
        max_size=5,
    ),
    TEXTS,
)
def test_an_a1111_body_is_read_or_refused(
    kind: type[TextToImage | ImageToImage], fields: dict[str, Any], prompt: str
) -> None:
    try:
        body = kind.model_validate({"prompt": prompt, **fields})
    except ValidationError:
        return
    wish = parse_request(body, CARD, ["hat"])
    assert all(isinstance(note, str) for note in wish.notes)
    if not wish.errors:
        with suppress(ValidationError):
            REQUEST.model_validate(wish.fields)


PART_HEADS = st.one_of(
    st.sampled_from(["prompt", "n", "loras[][name]", "tags[general][]", "a[b][c][d][e]", "image[]",
                     "image", "mask", "[", "a]", ""]).map('form-data; name="{}"'.format),
    TEXTS,
)  # fmt: skip


@st.composite
def forms_of_parts(draw: st.DrawFn) -> bytes:
    """A multipart form that may be damaged."""
    parts = []
    for _ in range(draw(st.integers(0, 6))):
        head = f"Content-Disposition: {draw(PART_HEADS)}"
        if draw(st.booleans()):
            head += '; filename="a.png"\r\nContent-Type: image/png'
        value = draw(st.one_of(TEXTS, JSON.map(json.dumps)))
        parts.append(f"--edge\r\n{head}\r\n\r\n{value}\r\n")
    end = draw(st.sampled_from(["--edge--\r\n", "--edge--", "--edge", ""]))
    return ("".join(parts) + end).encode("utf-8", "surrogatepass")


@fuzzed
@given(st.one_of(forms_of_parts(), st.binary(max_size=200)))
def test_a_form_is_read_or_refused(body: bytes) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"multipart/form-data; boundary=edge")]
    request = Request({"type": "http", "headers": headers}, receive)
    try:
        form = asyncio.run(read_form(request))
    except MalformedForm:
        return
    assert all(isinstance(data, bytes) for files in form.files.values() for data in files)
    own = {n: v for n, v in form.values.items() if n in Parameters.model_fields}
    with suppress(ValidationError):
        Parameters.model_validate(own)


@fuzzed
@given(st.one_of(TEXTS, TEXTS.map("Basic {}".format), TEXTS.map("Bearer {}".format)))
@example("Basic OjpAOg==")
@example("Basic é")
def test_credentials_are_text(header: str) -> None:
    assert all(isinstance(offered, str) for offered in _credentials(header))


@fuzzed
@given(TEXTS, TEXTS)
def test_no_forged_link_is_valid(offered: str, path: str) -> None:
    assert signed_urls.owner_of(offered, path, "secret") is None


@fuzzed
@given(TEXTS)
def test_a_log_line_is_one_line_and_can_be_written(text: str) -> None:
    line = escape_line(text)
    assert len(line.splitlines()) <= 1
    line.encode()
    assert escape(escape(text)) == escape(text)


# -- policy --------------------------------------------------------------------------------------

POLICY = load_policy()


@fuzzed
@given(TEXTS, TEXTS, st.sampled_from(["nsfw", "explicit", "nude", "sex"]))
@example("a" * 9_000, "", "nsfw")
@example("\u0301" * 9_000, "", "nsfw")
@example("n s f w " * 1_000, "", "nsfw")
@example("(" * 20, ":-1)" * 20, "nsfw")
def test_surrounding_text_does_not_hide_a_word(before: str, after: str, word: str) -> None:
    for prompts in ((f"{before}, {word}, {after}", ""), (before, f"({word}:-1), {after}")):
        with pytest.raises((PolicyBlocked, PromptError)):
            POLICY.check(*prompts, ceiling="safe")


@fuzzed
@given(TEXTS, TEXTS)
def test_any_prompt_is_judged(prompt: str, negative: str) -> None:
    with suppress(PolicyBlocked, PromptError):
        assert POLICY.check(prompt, negative, ceiling="explicit").requested in RATINGS

"""The transcripts of docs/chat-programs.md are what the service answers."""

import json
import re

import httpx2
import pytest

from tests.support.paths import ROOT
from tests.support.snippets import Snippet, matches, snippets

pytestmark = pytest.mark.timeout(240)

TRANSCRIPTS = [one for one in snippets(ROOT / "docs/chat-programs.md") if one.language == "text"]


def exchanges(transcript: str) -> list[tuple[str, str, str, str]]:
    """Method, path, body and the expected response of each request."""
    found = []
    for exchange in transcript.strip().split("\n\n"):
        lines = exchange.splitlines()
        sent = [line[2:] for line in lines if line.startswith("> ")]
        received = "\n".join(line[2:] for line in lines if line.startswith("< "))
        method, path = sent[0].split()
        found.append((method, path, "\n".join(sent[1:]), received))
    return found


def test_all_three_programs_have_a_transcript() -> None:
    assert len(TRANSCRIPTS) == 3


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)
def test_the_service_answers_as_the_page_says(service: httpx2.Client, transcript: Snippet) -> None:
    for method, path, body, expected in exchanges(transcript.code):
        response = service.request(
            method, path, content=body or None, headers={"content-type": "application/json"}
        )
        json.loads(response.text)
        assert matches(f"{response.status_code} {response.text}", expected), response.text[:3000]
    assert re.search(r"> POST /sdapi/v1/txt2img", transcript.code)

"""What the client does with answers that a healthy service gives rarely."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from rich.console import Console

from cli.client.generate import (
    GenerationError,
    _check,
    _follow,
    _save,
    format_of,
    lora_choice,
    options_of,
)

QUIET = Console(file=io.StringIO())


class Scripted(httpx2.BaseTransport):
    """Answers one after the other; keeps the requests."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Broken(httpx2.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __iter__(self) -> Iterator[bytes]:
        yield self.text.encode()
        raise httpx2.ReadError("gone")


def _events(text: str, *, is_broken: bool = False) -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream"}
    if is_broken:
        return httpx2.Response(200, headers=headers, stream=Broken(text))
    return httpx2.Response(200, headers=headers, text=text)


def _client(transport: Scripted) -> httpx2.Client:
    return httpx2.Client(base_url="http://service", transport=transport)


def test_a_broken_stream_is_resumed_after_the_last_event() -> None:
    transport = Scripted(
        _events('id: 1-1\nevent: started\ndata: {}\n\nid: 1-2\nevent: progress\ndata: '
                '{"step": 1, "steps": 2}\n\n', is_broken=True),
        httpx2.ConnectError("restarting"),
        httpx2.Response(503, json={"title": "Not ready"}),
        _events("id: 1-3\nevent: succeeded\ndata: {}\n\n"),
    )  # fmt: skip
    _follow(_client(transport), "J", deadline=time.monotonic() + 30, console=QUIET)
    told = [request.headers.get("Last-Event-ID") for request in transport.requests]
    assert told == [None, "1-2", "1-2", "1-2"]


def test_the_time_limit_ends_a_stream_without_end() -> None:
    quiet = "id: 1-1\nevent: queued\ndata: {}\n\n"
    transport = Scripted(_events(quiet), httpx2.ReadTimeout("silence"), _events(quiet))
    with pytest.raises(GenerationError, match="time limit"):
        _follow(_client(transport), "J", deadline=time.monotonic() + 1.2, console=QUIET)


def test_a_job_that_is_gone_is_no_reason_to_try_again() -> None:
    transport = Scripted(httpx2.Response(410, json={"title": "The job has expired"}))
    with pytest.raises(GenerationError, match="expired"):
        _follow(_client(transport), "J", deadline=time.monotonic() + 30, console=QUIET)


def test_an_answer_of_another_server_is_told_plainly() -> None:
    response = httpx2.Response(
        404, text="<html>", request=httpx2.Request("POST", "http://other/generate")
    )
    with pytest.raises(GenerationError, match="is it this service"):
        _check(response)


def test_loras_have_weights_after_a_colon() -> None:
    assert lora_choice("style/ink") == {"name": "style/ink"}
    assert lora_choice("hats:-0.5") == {"name": "hats", "weight": -0.5}
    with pytest.raises(GenerationError, match="'much' is no weight"):
        lora_choice("hats:much")


def test_a_problem_is_told_field_by_field() -> None:
    problem: dict[str, Any] = {
        "title": "The request is not valid",
        "detail": "2 fields are wrong",
        "errors": [
            {"pointer": "/steps", "detail": "too many"},
            {"pointer": "", "detail": "an object is needed"},
        ],
    }
    with pytest.raises(GenerationError) as caught:
        _check(httpx2.Response(422, json=problem))
    assert str(caught.value).splitlines() == [
        "The request is not valid: 2 fields are wrong",
        "  steps: too many",
        "  request: an object is needed",
    ]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    image = {"url": "http://service/images/a.png", "seed": 1, "format": "png"}
    with pytest.raises(GenerationError, match="cannot write"):
        _save(
            _client(Scripted(httpx2.Response(200, content=b"png"))),
            [image],
            tmp_path / "file" / "a.png",
        )


@pytest.mark.parametrize(
    ("out", "expected"),
    [(None, None), ("a.PNG", "png"), ("a.jpg", "jpeg"), ("a.jpeg", "jpeg"), ("folder", None)],
)
def test_the_file_name_chooses_the_format(out: str | None, expected: str | None) -> None:
    assert format_of(Path(out) if out else None) == expected


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(GenerationError, match=r"\.gif.*\.avif"):
        format_of(Path("a.gif"))


def test_options_of_the_sampler_are_numbers_truths_or_words() -> None:
    pairs = ["eta=0.5", "simple_order_2=true", "solver_type=heun", "max_order=2"]
    assert options_of(pairs) == {
        "eta": 0.5,
        "simple_order_2": True,
        "solver_type": "heun",
        "max_order": 2,
    }
    assert options_of(["eta=NaN", "s_noise=1e999"]) == {"eta": "NaN", "s_noise": "1e999"}
    assert options_of(None) is options_of([]) is None
    with pytest.raises(GenerationError, match="--sampler-option eta: must be NAME=VALUE"):
        options_of(["eta"])

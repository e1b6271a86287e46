"""Following a job while the service restarts, is silent, or has lost the job."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest

from cli.client.errors import ClientError, NotFound
from cli.client.jobs import follow, job_path
from tests.support.scripted_transport import ScriptedTransport


def quiet(event: str, data: Mapping[str, Any]) -> None:
    """Shows nothing."""


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


def _client(transport: ScriptedTransport) -> httpx2.Client:
    return httpx2.Client(base_url="http://service", transport=transport)


def test_a_broken_stream_is_resumed_after_the_last_event() -> None:
    transport = ScriptedTransport(
        _events('retry: 2000\n\nid: 1-1\nevent: started\ndata: {}\n\n'
                'id: 1-2\nevent: progress\ndata: {"step": 1, "steps": 2}\n\n', is_broken=True),
        httpx2.ConnectError("restarting"),
        httpx2.Response(503, json={"title": "Not ready"}),
        _events("id: 1-3\nevent: succeeded\ndata: {}\n\n"),
    )  # fmt: skip
    follow(_client(transport), "J", deadline=time.monotonic() + 30, show=quiet)
    sent = [request.headers.get("Last-Event-ID") for request in transport.requests]
    assert sent == [None, "1-2", "1-2", "1-2"]


def test_the_time_limit_ends_a_stream_without_end() -> None:
    silent = "id: 1-1\nevent: queued\ndata: {}\n\n"
    transport = ScriptedTransport(_events(silent), httpx2.ReadTimeout("silence"), _events(silent))
    with pytest.raises(ClientError, match="time limit"):
        follow(_client(transport), "J", deadline=time.monotonic() + 1.2, show=quiet)


def test_an_expired_job_is_not_retried() -> None:
    transport = ScriptedTransport(httpx2.Response(410, json={"title": "Job expired"}))
    with pytest.raises(ClientError, match="expired"):
        follow(_client(transport), "J", deadline=time.monotonic() + 30, show=quiet)


@pytest.mark.parametrize("text", ["", " ", "../jobs", "http://service/jobs/J", "J\udcff"])
def test_what_is_no_id_is_not_asked_for(text: str) -> None:
    assert job_path("01JD6Z1Q8M4T0V7C2N5K9R3XWB") == "/jobs/01JD6Z1Q8M4T0V7C2N5K9R3XWB"
    with pytest.raises(NotFound, match="is not the id of a job"):
        job_path(text)

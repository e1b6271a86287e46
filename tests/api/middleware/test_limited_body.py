"""The bodies of all requests in progress share a budget of memory."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest

from api.middleware import request_context
from api.middleware.limited_body import BodyBudget
from tests.support.api_server import ApiServer
from tests.support.cases import check_all
from tests.support.waiting import wait_until
from worker.settings import Settings

BODY = 1_000_000
BUDGET = 3 * BODY
FREE = 65_536

READERS = (
    ("/generate", "application/json"),
    ("/verify", "image/png"),
    ("/verify", "multipart/form-data; boundary=x"),
    ("/v1/images/generations", "application/json"),
    ("/v1/images/edits", "multipart/form-data; boundary=x"),
    ("/v1/images/edits", "application/json"),
    ("/v1/chat/completions", "application/json"),
    ("/sdapi/v1/txt2img", "application/json"),
    ("/sdapi/v1/img2img", "application/json"),
    ("/sdapi/v1/png-info", "application/json"),
    ("/sdapi/v1/options", "application/json"),
)
FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


@pytest.fixture(scope="module")
def budget() -> BodyBudget:
    """The budget of `narrow`."""
    return BodyBudget(BUDGET)


@pytest.fixture(scope="module")
def narrow(settings: Settings, budget: BodyBudget) -> Iterator[ApiServer]:
    """A server with a small budget."""
    sizes = {"max_body_bytes": 2 * BODY, "max_bodies_bytes": BUDGET}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_context, "BodyBudget", lambda _: budget)
        with ApiServer(settings.model_copy(update=sizes)) as running:
            patch.undo()
            yield running


def hold(server: ApiServer, size: int, operation: tuple[str, str], framing: str) -> socket.socket:
    """Send the first `size` bytes of a longer body, and keep the connection open."""
    port = int(server.url.rpartition(":")[2])
    path, media_type = operation
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}\r\n{framing}"
    body = (FORM if "multipart" in media_type else b"").ljust(size)
    connection.sendall(head.encode() + b"\r\n" + body)
    return connection


LENGTH = f"Content-Length: {2 * BODY}\r\n"
CHUNK = f"Transfer-Encoding: chunked\r\n\r\n{2 * BODY:x}"


def test_bodies_beyond_the_budget_are_refused(narrow: ApiServer, redis_url: str) -> None:
    def check(operation: tuple[str, str], framing: str) -> None:
        narrow.wait_for_requests(0)
        with ExitStack() as stack:
            held = [stack.enter_context(hold(narrow, BODY, operation, framing)) for _ in range(4)]
            (refused, *_), _, _ = select.select(held, [], [], 60)
            answer = refused.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 "), answer
        assert b"too_many_bodies" in answer or b"the bodies of other requests" in answer, answer
        assert b"retry-after: 1\r\n" in answer.lower()

    check_all(check, ((one, framing) for one in READERS for framing in (LENGTH, CHUNK)))


def test_small_requests_pass_and_the_budget_is_given_back(
    narrow: ApiServer, budget: BodyBudget, redis_url: str
) -> None:
    small = {"prompt": "1girl", "negative_prompt": "x, " * 20}
    large = {"prompt": "1girl", "init_image": "A" * BODY}
    url = f"{narrow.url}/generate?dry_run=true"
    narrow.wait_for_requests(0)
    with ExitStack() as stack:
        held = [
            stack.enter_context(hold(narrow, BODY + FREE, READERS[0], LENGTH)) for _ in range(3)
        ]
        # A large request before the three are read would take a part of their budget.
        wait_until(lambda: budget.held == BUDGET)
        refused = httpx2.post(url, json=large, timeout=60)
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_bodies")
        assert httpx2.post(url, json=small, timeout=60).status_code == 200
        assert select.select(held, [], [], 0)[0] == []  # the three fill it exactly
    narrow.wait_for_requests(0)
    assert budget.held == 0
    for _ in range(5):
        assert httpx2.post(url, json=large, timeout=60).status_code == 422


def test_what_is_only_declared_does_not_count(narrow: ApiServer, redis_url: str) -> None:
    narrow.wait_for_requests(0)
    with ExitStack() as stack:
        for number in range(10):
            stack.enter_context(hold(narrow, 10, READERS[0], LENGTH))
            narrow.wait_for_requests(number + 1)
        answer = httpx2.post(f"{narrow.url}/verify", content=b"x" * BODY, timeout=60)
        assert answer.status_code == 422, answer.text


def test_a_budget_below_the_largest_body_is_raised(settings: Settings, redis_url: str) -> None:
    sizes = {"max_body_bytes": BODY, "max_bodies_bytes": BODY // 2}
    with ApiServer(settings.model_copy(update=sizes)) as running:
        answer = httpx2.post(f"{running.url}/verify", content=b"x" * BODY, timeout=60)
        assert answer.status_code == 422, answer.text

"""Each check of a request's framing on its own: what it refuses, and the reason that it gives."""

import h11
import pytest

from api.middleware.strict_h11 import StrictConnection

HEAD = "POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"

REFUSED = {
    "a line of the head ends with a bare line feed": (
        HEAD + "X: a\nY: b\r\n\r\n",
        HEAD + "X: a\r\n\n",
        HEAD.replace("\r\n", "\n") + "\n",
    ),
    "a header is folded into two lines": (
        HEAD + "X: a\r\n b\r\n\r\n",
        HEAD + "X: a\r\n\tContent-Length: 5\r\n\r\n",
    ),
    "there are several Content-Length": (
        HEAD + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
        HEAD + "Content-Length: 2\r\ncontent-length: 2\r\n\r\n",
        HEAD + "Content-Length: 2,2\r\n\r\n",
    ),
    "there are both Content-Length and Transfer-Encoding": (
        HEAD + CHUNKED + "Content-Length: 0\r\n\r\n",
        HEAD + "Content-Length: 5\r\n" + CHUNKED + "\r\n",
    ),
    "there are several authorization headers": (
        HEAD + "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        HEAD + "Authorization: a\r\nauthorization: \r\n\r\n",
    ),
    "there are several origin headers": (HEAD + "Origin: null\r\nOrigin: http://a\r\n\r\n",),
    "HTTP/1.0 has no Transfer-Encoding": (HEAD.replace("1.1", "1.0") + CHUNKED + "\r\n",),
    "a chunk is malformed": (
        HEAD + CHUNKED + "\r\n1 \r\na",
        HEAD + CHUNKED + "\r\n1;a\rb\r\na",
        HEAD + CHUNKED + "\r\n1\r\na\r\n0 \r\n\r\n",
        HEAD + CHUNKED + "\r\n0;a\rb\r\n\r\n",
    ),
    "a line of the chunks ends with a bare line feed": (
        HEAD + CHUNKED + "\r\n3\nabc",
        HEAD + CHUNKED + "\r\n1\r\na\r\n0\r\nX: a\n",
    ),
    "the chunks are too small": (HEAD + CHUNKED + "\r\n" + "1\r\n \r\n" * 5_000,),
}


def reason_of(request: str) -> str:
    """Why a request is refused that arrives at once; "" if it is not."""
    connection = StrictConnection(32_768)
    connection.receive_data(request.encode())
    waiting = (h11.NEED_DATA, h11.PAUSED)
    try:
        connection.begin_slice()
        while connection.next_event() not in waiting or connection.is_cut or connection.is_held:
            connection.is_held = False
            connection.begin_slice()
    except h11.RemoteProtocolError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("reason", REFUSED)
def test_each_check_refuses_for_its_own_reason(reason: str) -> None:
    found = {request: reason_of(request) for request in REFUSED[reason]}
    assert all(told.startswith(reason) for told in found.values()), found


def test_well_formed_requests_pass() -> None:
    for request in (
        HEAD + "Content-Length: 2\r\n\r\nab",
        HEAD + CHUNKED + '\r\n1;a="b"\r\na\r\n00\r\nX: a\r\n\r\n',
        HEAD + CHUNKED + "\r\n1\r\na\r",
        HEAD + "Accept: a\r\nAccept: b\r\nOrigin: http://a\r\nOrigin: http://a\r\n\r\n",
    ):
        assert reason_of(request) == ""

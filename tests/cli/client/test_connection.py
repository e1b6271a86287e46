"""Error messages from problem responses and from other servers."""

import socket
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.client.connection import open_client, raise_for_problem, service_url
from cli.client.errors import ClientError, ServiceAway
from tests.support.cli import kirazuri_inline


def test_another_server_is_recognised() -> None:
    response = httpx2.Response(
        404, text="<html>", request=httpx2.Request("POST", "http://other/generate")
    )
    with pytest.raises(ClientError, match="is it this service"):
        raise_for_problem(response)


def test_a_problem_names_each_field() -> None:
    problem: dict[str, Any] = {
        "title": "Invalid request",
        "detail": "2 fields are wrong",
        "errors": [
            {"pointer": "/steps", "detail": "too many"},
            {"pointer": "", "detail": "an object is needed"},
        ],
    }
    with pytest.raises(ClientError) as caught:
        raise_for_problem(httpx2.Response(422, json=problem))
    assert str(caught.value).splitlines() == [
        "Invalid request: 2 fields are wrong",
        "  steps: too many",
        "  request: an object is needed",
    ]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("localhost:18402", "http://localhost:18402"),
        (" localhost:18402/ ", "http://localhost:18402"),
        ("LOCALHOST", "http://LOCALHOST"),
        ("box:8000/art", "http://box:8000/art"),
        ("192.168.0.7:8000", "http://192.168.0.7:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("art.example", "https://art.example"),
        ("http://art.example:80/", "http://art.example:80"),
    ],
)
def test_an_address_is_read(address: str, url: str) -> None:
    assert service_url(address) == url


@pytest.mark.parametrize(
    "address",
    ["", ":8000", "http://", "http:/localhost:8000", "ftp://localhost", "localhost:99999",
     "localhost:port", "[::1", "localhost:8000/?a=1", "http://local host"],
)  # fmt: skip
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ClientError, match="is not an address such as http://"):
        service_url(address)


def test_the_service_is_named_by_a_setting(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KIRAZURI_URL=localhost:9")
    for command in (("generate", "1girl"), ("replay", "job"), ("verify", __file__)):
        run = kirazuri_inline(*command, folder=tmp_path)
        assert (run.returncode, "nothing answers at http://localhost:9" in run.stderr) == (5, True)
        run = kirazuri_inline(*command, "--url", "127.0.0.1:9", folder=tmp_path)
        assert "nothing answers at http://127.0.0.1:9" in run.stderr, "the option takes precedence"
    (tmp_path / ".env").write_text("KIRAZURI_URL=:9")
    run = kirazuri_inline("generate", "1girl", folder=tmp_path)
    assert (run.returncode, run.stderr.partition(" is not")[0]) == (2, "error: KIRAZURI_URL: ':9'")


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 3), (403, 3), (409, 3), (422, 3), (404, 4), (410, 4), (429, 5), (500, 5), (503, 5)],
)
def test_the_exit_code_tells_the_kind_of_failure(status: int, code: int) -> None:
    response = httpx2.Response(status, json={"title": "No"}, headers={"Retry-After": "7"})
    with pytest.raises(ClientError) as caught:
        raise_for_problem(response)
    assert caught.value.exit_code == code
    if isinstance(caught.value, ServiceAway):
        assert caught.value.retry_after == 7


def test_a_redirect_is_told() -> None:
    response = httpx2.Response(
        301,
        headers={"Location": "https://art.example/jobs"},
        request=httpx2.Request("GET", "http://art.example/jobs"),
    )
    with pytest.raises(ServiceAway, match=r"redirects to https://art\.example/jobs"):
        raise_for_problem(response)


@pytest.mark.parametrize("ending", ["\r", "\n", " ", "\r\n"])
def test_the_end_of_a_line_is_no_part_of_the_key(
    monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setenv("KIRAZURI_API_KEY", f"kzr_1{ending}")
    with open_client("http://127.0.0.1:9") as client:
        assert client.headers["Authorization"] == "Bearer kzr_1"
    monkeypatch.setenv("KIRAZURI_API_KEY", ending)
    with open_client("http://127.0.0.1:9") as client:
        assert "Authorization" not in client.headers


@pytest.mark.parametrize("key", ["kzr_ключ", "kzr_1\nkzr_2"])
def test_a_key_that_cannot_be_sent_is_not_shown(tmp_path: Path, key: str) -> None:
    run = kirazuri_inline("jobs", folder=tmp_path, KIRAZURI_API_KEY=key)
    assert (run.returncode, run.stderr.partition(" has")[0]) == (1, "error: KIRAZURI_API_KEY")
    assert "kzr_" not in run.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "ftp://127.0.0.1:9"), ("SSL_CERT_FILE", "/nowhere/ca.pem")],
)
def test_a_variable_that_cannot_be_used_is_named(tmp_path: Path, variable: str, value: str) -> None:
    address = ("--url", "https://192.0.2.1:9")
    run = kirazuri_inline("jobs", *address, folder=tmp_path, **{variable: value})
    assert (run.returncode, run.stderr.splitlines()[0][:43]) == (
        1,
        "error: https://192.0.2.1:9 cannot be called",
    )
    assert variable in run.stderr


def test_a_proxy_that_does_not_answer_is_named(tmp_path: Path) -> None:
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    run = kirazuri_inline("jobs", "--url", "http://192.0.2.1:9", folder=tmp_path, **proxy)
    assert (run.returncode, "through the proxy of HTTP_PROXY" in run.stderr) == (5, True)
    run = kirazuri_inline("jobs", "--url", "http://127.0.0.1:9", folder=tmp_path, **proxy)
    assert "start the service with" in run.stderr


def test_https_at_a_port_without_tls_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            caller, _ = listener.accept()
            with caller:
                caller.recv(1)
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        run = kirazuri_inline("jobs", "--url", address, folder=tmp_path)
        thread.join()
    assert run.returncode == 5
    assert "write http:// instead" in run.stderr


def test_an_argument_that_is_no_text_is_told(tmp_path: Path) -> None:
    run = kirazuri_inline("tags", "b\udcff", "--url", "127.0.0.1:9", folder=tmp_path)
    assert (run.returncode, run.stderr) == (2, "error: an argument is not UTF-8 text\n")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hidden@127.0.0.1:1",
        "user:hidden@127.0.0.1:1",
        "http://user:hid/den@127.0.0.1:1",
        "http://user:hidden @127.0.0.1",
        "ftp://user:hidden@127.0.0.1",
    ],
)
def test_a_password_in_the_url_is_not_shown(url: str, tmp_path: Path) -> None:
    run = kirazuri_inline("queue", folder=tmp_path, KIRAZURI_URL=url)
    assert run.returncode != 0
    assert "127.0.0.1" in run.stderr
    assert "hid" not in run.stderr


def test_a_password_is_not_shown_when_another_server_answers() -> None:
    request = httpx2.Request("GET", "http://user:hidden@other/queue")
    for response in (
        httpx2.Response(404, text="<html>", request=request),
        httpx2.Response(302, headers={"Location": "/x"}, request=request),
        httpx2.Response(500, json=[], request=request),
    ):
        with pytest.raises(ClientError) as caught:
            raise_for_problem(response)
        assert "http://other/queue" in str(caught.value)
        assert "hidden" not in str(caught.value)

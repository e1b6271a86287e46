"""Unknown paths, wrong methods, unusual headers and malformed HTTP are problems, never a 500."""

import itertools
import socket

import httpx2

from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from tests.support.cases import check_all

PATHS = [
    ("GET", "/", 200),
    ("GET", "/nothing", 404),
    ("GET", "/generate/", 404),
    ("GET", "/generate", 405),
    ("PUT", "/generate", 405),
    ("OPTIONS", "/generate", 405),
    ("POST", "/jobs/01JD6Z1Q8M4T0V7C2N5K9R3XWB", 405),
    ("GET", "/jobs/nothing", 404),
    ("GET", "/jobs/%00", 404),
    ("GET", "/jobs/%ff%fe", 404),
    ("GET", "/jobs/..%2f..%2fetc", 404),
    ("GET", "/jobs/" + "A" * 5000, 404),
    ("GET", "/jobs/nothing/events", 404),
    ("DELETE", "/jobs/nothing", 404),
    ("GET", "/images/nothing.png", 404),
    ("GET", "/images/..%2f..%2fetc%2fpasswd", 404),
    ("GET", "/images/%2e%2e%2fsecret.png", 404),
    ("GET", "/images/%00.png", 404),
    ("GET", "/images/" + "0" * 40 + ".png%0a", 404),
    ("GET", "/problems/nothing", 404),
    ("GET", "/problems/%ed%a0%80", 404),
]


def test_unknown_paths_and_methods(client: httpx2.Client) -> None:
    def check(method: str, path: str, status: int) -> None:
        answer = client.request(method, path)
        assert answer.status_code == status, answer.text
        if status >= 400:
            read_problem(answer)
        if status == 405:
            assert answer.headers["allow"]

    check_all(check, PATHS)


def test_unknown_ids_by_age(client: httpx2.Client) -> None:
    assert read_problem(client.get("/jobs/7ZZZZZZZZZZZZZZZZZZZZZZZZZ"))["code"] == "job_not_found"
    assert read_problem(client.get("/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV"))["code"] == "job_expired"


HEADERS = [
    ({"idempotency-key": ""}, 422),
    ({"idempotency-key": "a" * 256}, 422),
    ({"idempotency-key": "schlüssel"}, 202),
    ({"prefer": "wait=abc"}, 202),
    ({"prefer": "wait=-1"}, 202),
    ({"prefer": "handling=lenient, waiting=3"}, 202),
    ({"traceparent": "nonsense"}, 202),
    ({"x-request-id": "bad id with spaces"}, 202),
]


def test_unusual_headers(client: httpx2.Client) -> None:
    def check(headers: dict[str, str], status: int) -> None:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = client.post("/generate", json={"prompt": "1girl"}, headers=encoded)
        assert answer.status_code == status, answer.text
        assert "preference-applied" not in answer.headers
        if status == 422:
            (error,) = read_problem(answer)["errors"]
            assert "idempotency-key" in error["detail"]
        else:
            client.delete(f"/jobs/{answer.json()['id']}")  # the queue holds few jobs

    check_all(check, HEADERS)


RAW = {
    "no ASCII in the query": b"GET /nothing?\xff\xfe HTTP/1.1\r\nHost: a\r\n",
    "no ASCII in the host": b"GET /jobs/x HTTP/1.1\r\nHost: \xff\xfe[::\r\n",
    "a length that is no number": b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n",
    "a length beyond numbers": b"POST /generate HTTP/1.1\r\nHost: a\r\n"
    b"Content-Type: application/json\r\nContent-Length: " + b"9" * 30 + b"\r\n",
    "two lengths": b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Content-Length: 2\r\n",
    "a range that is no range": b"GET /images/x HTTP/1.1\r\nHost: a\r\nRange: bytes=z\r\n",
}


def test_malformed_heads(server: ApiServer) -> None:
    def check(head: bytes) -> None:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head + b"Connection: close\r\n\r\n")
            status = int(connection.makefile("rb").readline().split()[1])
        assert 400 <= status < 500
        assert httpx2.get(f"{server.url}/livez", timeout=60).status_code == 200

    check_all(check, RAW.values())


def test_allow_lists_the_methods_of_all_routes_of_a_path(client: httpx2.Client) -> None:
    job = client.options("/jobs/01JD6Z1Q8M4T0V7C2N5K9R3XWB")
    assert job.headers["allow"] == "DELETE, GET, HEAD"
    assert client.put("/images/x.png").headers["allow"] == "DELETE, GET, HEAD"


HOSTILE_IDS = [
    b"a\tb", b"a b", b"\x1b[31mred", b"caf\xe9", "\u202eabc".encode(), b"a" * 129, b"",
    b"a;b=c", b"../x",
    b"<script>", b"a%0d%0aSet-Cookie:x=1",
]  # fmt: skip


def test_unsafe_request_ids_are_replaced(client: httpx2.Client) -> None:
    def check(offered: bytes) -> None:
        answer = client.get("/jobs/nothing", headers=[(b"x-request-id", offered)])
        assert read_problem(answer)["instance"] == answer.headers["x-request-id"]
        assert answer.headers["x-request-id"].isalnum()
        assert len(answer.headers["x-request-id"]) == 32

    check_all(check, HOSTILE_IDS)


TRAVERSALS = [
    "/images/{}", "/images/%2e%2e/{}", "/images/..%5c{}", "/images/.%00./{}", "/images//{}",
    "/static-offline-docs/{}", "/static-offline-docs/%2e%2e/{}", "/problems/..%2f{}",
]  # fmt: skip


def test_no_path_leaves_its_folder(server: ApiServer) -> None:
    """Over a raw socket, because client libraries normalise the dots."""
    port = int(server.url.rpartition(":")[2])

    def check(path: str, name: str) -> None:
        head = f"GET {path.format(name)} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head.encode())
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 404 "), answer
        assert b"root:" not in answer

    names = ("../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd")
    check_all(check, itertools.product(TRAVERSALS, names))

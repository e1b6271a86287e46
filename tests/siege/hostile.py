"""Hostile clients, one kind each. Each goes through its disguises again and again.

`python -m tests.siege.hostile KIND --port N --seconds S` prints what it was answered, as JSON.
"""

import argparse
import http.client
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice

from tests.siege import bodies
from tests.siege.bodies import Sent

THREADS = 2
_TINY = b"1\r\n \r\n" * 5_000
_CHUNKED = "Transfer-Encoding: chunked\r\n"
_TIMEOUT = 20.0
_PATIENCE = 2.0


@dataclass
class Target:
    """The service, the hostile client's keys, and what it was answered so far."""

    port: int
    keys: Mapping[str, str]
    until: float
    answers: Counter[str] = field(default_factory=Counter)

    def is_over(self) -> bool:
        return time.monotonic() > self.until

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT)

    def authorizations(self) -> Iterator[str]:
        """Header lines in turn: without a key, with one that may do nothing, with a good one."""
        lines = ["", "Authorization: Bearer kzr_wrong\r\n"]
        lines += [f"Authorization: Bearer {self.keys[name]}\r\n" for name in ("powerless", "foe")]
        return cycle(lines)

    def note(self, answer: bytes) -> None:
        """Count the status of an answer."""
        status = answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "cut"
        self.answers[status] += 1


def _head(operation: str, *lines: str) -> bytes:
    return f"{operation} HTTP/1.1\r\nHost: a\r\n{''.join(lines)}\r\n".encode()


def _pour(target: Target, head: bytes, part: bytes, *, most: int) -> None:
    """Send a head and parts until the service closes the connection."""
    sent, answer = 0, b""
    with target.connect() as connection:
        with suppress(OSError):
            connection.sendall(head)
            while sent < most and not target.is_over():
                connection.sendall(part)
                sent += len(part)
            connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            answer = connection.recv(65_536)
    target.note(answer)


def tiny_chunks(target: Target) -> None:
    """Chunks of one byte, at any endpoint, with and without a key."""
    places = ("POST /verify", "GET /livez", "POST /generate", "PUT /nothing", "POST /sdapi/v1/skip")
    for authorization in target.authorizations():
        for operation in (*places, "POST /v1/images/edits"):
            if target.is_over():
                return
            media_type = "Content-Type: multipart/form-data; boundary=x\r\n"
            head = _head(operation, authorization, media_type, _CHUNKED)
            _pour(target, head, _TINY, most=20_000_000)


def endless_bodies(target: Target) -> None:
    """Bodies that go on after they were refused."""
    for authorization in target.authorizations():
        for operation in ("POST /verify", "POST /generate", "GET /livez", "DELETE /jobs/x"):
            for lines in ("Content-Length: 2000000000\r\n", f"{_CHUNKED}\r\n7fffffff"):
                if target.is_over():
                    return
                media_type = "Content-Type: text/plain\r\n"
                head = _head(operation, authorization, media_type, lines)
                _pour(target, head, b" " * 100_000, most=1_000_000_000)


def _send(target: Target, request: Sent, authorization: str, body: bytes) -> None:
    # Some calls wait for a picture that nobody makes.
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=_PATIENCE)
    headers = {"Content-Type": request.media_type}
    if authorization:
        headers["Authorization"] = authorization.strip().partition(": ")[2]
    try:
        connection.request("POST", request.path, body, headers)
        answer = connection.getresponse()
        answer.read()
        target.answers[str(answer.status)] += 1
    except (OSError, http.client.HTTPException):
        target.answers["cut"] += 1
    finally:
        connection.close()


def _send_all(requests: Callable[[], list[Sent]]) -> Callable[[Target], None]:
    def attack(target: Target) -> None:
        listed, authorizations = requests(), list(islice(target.authorizations(), 4))
        pairs = [(request, line) for request in listed for line in authorizations]
        random.shuffle(pairs)  # the threads do different things
        made: dict[Callable[[], bytes], bytes] = {}
        for request, authorization in cycle(pairs):
            if target.is_over():
                return
            if request.make not in made:
                made[request.make] = request.make()
            _send(target, request, authorization, made[request.make])

    return attack


def held_bodies(target: Target) -> None:
    """Bodies of almost 16 MB of which the end never comes."""
    held: list[socket.socket] = []
    authorizations = target.authorizations()
    for path, media_type in cycle(bodies.BODY_READERS):
        if target.is_over():
            break
        lines = f"Content-Type: {media_type}\r\n", "Content-Length: 16000000\r\n"
        start = bodies.form_of(b"")[:-9] if "multipart" in media_type else b""
        connection = target.connect()
        held.append(connection)
        with suppress(OSError):
            connection.sendall(_head(f"POST {path}", next(authorizations), *lines) + start)
            for _ in range(159):
                connection.sendall(b" " * 100_000)
        connection.setblocking(False)
        with suppress(OSError):
            target.note(connection.recv(65_536))
        for old in held[: max(0, len(held) - 40)]:
            old.close()
        del held[: max(0, len(held) - 40)]
    for connection in held:
        connection.close()


def all_connections(target: Target) -> None:
    """Event streams, waiting calls, slow heads and slow readers, as many as there are."""
    job = _submit(target)
    foe = f"Authorization: Bearer {target.keys['foe']}\r\n"
    call = '{"prompt": "1girl", "resolution": "128x128"}'
    json_lines = f"Content-Type: application/json\r\nContent-Length: {len(call)}\r\n"
    requests = cycle(
        [
            _head(f"GET /jobs/{job}/events", foe),
            _head(f"GET /jobs/{job}/events", foe),
            _head("POST /generate", foe, "Prefer: wait=60\r\n", json_lines) + call.encode(),
            b"GET /livez HTTP/1.1\r\nHost: a\r\n",
            _head("POST /v1/chat/completions", foe, "Content-Length: 9000\r\n"),
            b"",
            *[_head(f"GET /jobs/{job}/events", foe), b"GET / HTTP", b""] * 3,
            _head("GET /static-offline-docs/swagger-ui-bundle.js"),
        ]
    )
    held: list[socket.socket] = []
    while not target.is_over():
        try:
            connection = target.connect()
            held.append(connection)
            connection.sendall(next(requests))
        except OSError:
            target.answers["cut"] += 1
        # All are taken when both threads hold this many. A flood of new ones is another matter.
        if len(held) > 600:
            held.pop(0).close()
            time.sleep(0.1)
        time.sleep(0.009)
    for connection in held:
        connection.setblocking(False)
        with suppress(OSError):
            target.note(connection.recv(100))
        connection.close()


def _submit(target: Target) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=_TIMEOUT)
    headers = {"Authorization": f"Bearer {target.keys['foe']}", "Content-Type": bodies.JSON}
    connection.request("POST", "/generate", json.dumps({"prompt": "1girl"}), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return str(answer.get("id", "none"))


def two_readings(target: Target) -> None:
    """Requests that two servers could read differently, many on one connection."""
    variants = (
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 50\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X: a\nContent-Length: 5\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
    )
    for authorization in target.authorizations():
        for lines in variants:
            if target.is_over():
                return
            inner = b"0\r\n\r\n" + _head("GET /livez")
            head = _head("POST /verify", authorization, lines)
            _pour(target, head + inner, (head + inner) * 20, most=100_000)


ATTACKS: Mapping[str, Callable[[Target], None]] = {
    "tiny chunks": tiny_chunks,
    "endless bodies": endless_bodies,
    "many keys": _send_all(bodies.key_attacks),
    "other bodies": _send_all(bodies.stalling_attacks),
    "thin pictures": _send_all(bodies.picture_attacks),
    "held bodies": held_bodies,
    "all connections": all_connections,
    "two readings": two_readings,
}
"""The kinds of hostile clients."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=ATTACKS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    keys = json.loads(os.environ["SIEGE_KEYS"])  # noqa: TID251 - not on the command line
    target = Target(options.port, keys, time.monotonic() + options.seconds)
    threads = [
        threading.Thread(target=ATTACKS[options.kind], args=(target,), daemon=True)
        for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(options.seconds + 2 * _TIMEOUT)
    print(json.dumps(target.answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())

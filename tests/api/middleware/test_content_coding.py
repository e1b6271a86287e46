"""Bodies with a `Content-Encoding`."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence

import httpx2
import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from api.http.errors import BodyTooLarge, BrokenCoding, UnsupportedCoding
from api.middleware.content_coding import decoded_body
from tests.support.a1111_clients import NO_WAIT, read_a1111_error
from tests.support.api_calls import PROMPT, read_problem
from tests.support.cases import check_all
from tests.support.images import draw_image, encode_file
from tests.support.manual_worker import ManualWorker
from tests.support.openai_clients import read_openai_error

BODY = json.dumps({"prompt": PROMPT, "seed": 7}).encode()
JSON = {"content-type": "application/json"}
MB = 1_000_000


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


Encoder = Callable[[bytes], bytes]

READ: list[tuple[str, Encoder]] = [
    ("gzip", gzip.compress),
    ("GZip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("identity", bytes),
    ("", bytes),
    (", identity", bytes),
    ("identity, gzip", gzip.compress),
    ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    ("gzip", lambda data: gzip.compress(data) + bytes(100_000)),
    ("gzip", lambda data: gzip.compress(data[:9]) + bytes(9) + gzip.compress(data[9:])),
]


def test_encoded_bodies_are_read(client: httpx2.Client) -> None:
    def check(coding: str, encode: Encoder) -> None:
        headers = JSON | {"content-encoding": coding}
        answer = client.post("/generate?dry_run=true", content=encode(BODY), headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["request"]["seed"] == 7

    check_all(check, READ)


def test_codings_in_several_headers(client: httpx2.Client) -> None:
    data = gzip.compress(zlib.compress(BODY))
    headers = [*JSON.items(), ("content-encoding", "deflate"), ("content-encoding", "gzip")]
    assert client.post("/generate", content=data, headers=headers).status_code == 202


def test_chunks_of_an_encoded_body(client: httpx2.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (bytes([byte]) for byte in gzip.compress(BODY))

    headers = JSON | {"content-encoding": "gzip"}
    assert client.post("/generate", content=chunks(), headers=headers).status_code == 202


def test_every_kind_of_body_may_be_encoded(client: httpx2.Client, worker: ManualWorker) -> None:
    file = encode_file(draw_image())
    coded = {"content-encoding": "gzip"}
    for path in ("/sdapi/v1/txt2img", "/v1/images/generations"):
        headers = JSON | coded | NO_WAIT
        assert client.post(path, content=gzip.compress(BODY), headers=headers).status_code == 504
    request = client.build_request(
        "POST", "/v1/images/edits", data={"prompt": "x"}, files={"image": file}
    )
    headers = {"content-type": request.headers["content-type"]} | coded | NO_WAIT
    data = gzip.compress(request.read())
    assert client.post("/v1/images/edits", content=data, headers=headers).status_code == 504
    assert len(worker.queued_ids()) == 3
    verified = client.post("/verify", content=gzip.compress(file), headers=coded)
    assert (verified.json()["bytes"], verified.json()["width"]) == (len(file), 128)


def test_other_codings_are_refused(client: httpx2.Client) -> None:
    def check(coding: str, named: str) -> None:
        headers = JSON | {"content-encoding": coding}
        answer = client.post("/generate", content=gzip.compress(BODY), headers=headers)
        assert answer.status_code == 415
        problem = read_problem(answer)
        assert problem["code"] == "unsupported_coding"
        assert f"Content-Encoding is {named};" in problem["detail"]
        assert answer.headers["accept-encoding"] == "gzip, deflate"

    check_all(
        check,
        [
            ("br", "br"),
            ("zstd", "zstd"),
            ("compress", "compress"),
            ("gzip, br", "br"),
            ("gzip;q=1", "gzip;q=1"),
            ("gzip, gzip, gzip", "gzip, gzip, gzip"),
        ],
    )
    headers = JSON | {"content-encoding": "br"}
    answer = client.post("/v1/images/generations", content=BODY, headers=headers)
    assert read_openai_error(answer, 415)["code"] == "unsupported_coding"
    answer = client.post("/sdapi/v1/txt2img", content=BODY, headers=headers)
    read_a1111_error(answer, 415, "unsupported_coding")


def test_bodies_that_are_not_what_they_say(client: httpx2.Client) -> None:
    def check(coding: str, data: bytes, reason: str) -> None:
        headers = JSON | {"content-encoding": coding}
        answer = client.post("/generate", content=data, headers=headers)
        assert answer.status_code == 400, answer.text
        problem = read_problem(answer)
        assert problem["code"] == "broken_coding"
        assert reason in problem["detail"]

    coded = gzip.compress(BODY)
    check_all(
        check,
        [
            ("gzip", BODY, "names gzip, but the body is not"),
            ("deflate", BODY, "names deflate, but the body is not"),
            ("gzip", zlib.compress(BODY), "names gzip"),
            ("deflate", coded, "names deflate"),
            ("gzip", coded[:-3], "cut off"),
            ("gzip", coded[:5], "cut off"),
            ("deflate", zlib.compress(BODY)[:-1], "cut off"),
            ("deflate", b"x", "cut off"),
            ("gzip", coded + b"more", "names gzip"),
            ("deflate", zlib.compress(BODY) + b"more", "names deflate"),
            ("gzip", coded[:-8] + b"\0" * 8, "names gzip"),
            ("gzip", gzip.compress(b"") * 200, "names gzip"),
            ("gzip, gzip", coded, "names gzip"),
        ],
    )


def test_the_unpacked_size_is_limited(client: httpx2.Client) -> None:
    def check(coding: str, data: bytes) -> None:
        assert len(data) < MB
        headers = JSON | {"content-encoding": coding}
        answer = client.post("/generate", content=data, headers=headers)
        assert answer.status_code == 413
        assert "16000000 bytes" in read_problem(answer)["detail"]

    spaces, zeros = b" " * 40 * MB, b"\0" * 40 * MB
    bombs = [
        ("gzip", gzip.compress(zeros)),
        ("deflate", zlib.compress(zeros)),
        ("gzip, gzip", gzip.compress(gzip.compress(spaces))),
        ("deflate, gzip", gzip.compress(b"\0\0\0\xff\xff" * 8 * MB)),  # nothing, at length
    ]
    check_all(check, bombs)


def test_a_call_without_a_body_may_name_a_coding(client: httpx2.Client) -> None:
    for coding in ("gzip", "br"):
        headers = {"content-encoding": coding}
        assert client.get("/capabilities", headers=headers).status_code == 200
        assert client.post("/sdapi/v1/interrupt", headers=headers).status_code == 200


def receive_all(
    data: bytes, coding: str, *, limit: int, chunk: int = 65_536
) -> tuple[Sequence[bytes], int, Exception | None]:
    """The decoded pieces, how many chunks were taken for them, and how it ended."""
    chunks = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    taken, pieces = 0, []

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": chunks[taken - 1], "more_body": taken < len(chunks)}

    async def run() -> Exception | None:
        decoded = decoded_body(receive, Headers({"content-encoding": coding}), limit)
        try:
            while (message := await decoded())["more_body"]:
                pieces.append(message["body"])
        except (BodyTooLarge, BrokenCoding, UnsupportedCoding) as exc:
            return exc
        pieces.append(message["body"])
        return None

    return pieces, taken, asyncio.run(run())


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_pieces_are_small_whatever_the_chunks(chunk: int) -> None:
    data = bytes(range(256)) * 2000
    for coding, encode in (*READ[:4], *READ[-2:]):
        encoded = encode(data)
        pieces, _, error = receive_all(encoded, coding, limit=MB, chunk=chunk)
        assert error is None
        assert b"".join(pieces) == data
        assert max(map(len, pieces)) <= 65_536


def test_decoding_stops_at_the_limit() -> None:
    data = gzip.compress(b"\0" * 40 * MB, compresslevel=1)
    pieces, taken, error = receive_all(data, "gzip", limit=MB, chunk=4096)
    assert isinstance(error, BodyTooLarge)
    assert sum(map(len, pieces)) <= MB
    assert taken < 5

"""Nothing that a client sends is a 500; every refusal is a problem that names the field."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from model.sampler_catalog import REFUSED_SAMPLERS
from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer

JSON = {"content-type": "application/json"}
PROMPT = '{"prompt": "1girl, blue hair, smile"'


NOT_JSON = {
    "nothing": b"",
    "half an object": b'{"prompt": "1girl"',
    "a comma too many": b'{"prompt": "1girl",}',
    "not UTF-8": b'{"prompt": "\xff\xfe\xfa"}',
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "a number of 5000 digits": PROMPT.encode() + b', "seed": ' + b"9" * 5000 + b"}",
    "plain text": b"hello",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_a_body_that_is_no_json(client: httpx2.Client, body: bytes) -> None:
    answer = client.post("/generate", content=body, headers=JSON)
    assert answer.status_code == (422 if body == b"" else 400)
    read_problem(answer)


NOT_AN_OBJECT = ["null", "[]", '"1girl"', "3", "true", "[[[]]]", "NaN"]


@pytest.mark.parametrize("body", NOT_AN_OBJECT)
def test_json_that_is_no_object(client: httpx2.Client, body: str) -> None:
    answer = client.post("/generate", content=body, headers=JSON)
    assert answer.status_code == 422
    (error,) = read_problem(answer)["errors"]
    assert error["pointer"] == ""


WRONG_FIELDS: list[tuple[str, str, Any]] = [
    ('"steps": 0', "/steps", 1),
    ('"steps": 101', "/steps", 100),
    ('"steps": 1e400', "/steps", None),
    ('"steps": NaN', "/steps", None),
    ('"steps": "20"', "/steps", None),
    ('"steps": 20.5', "/steps", None),
    ('"steps": true', "/steps", None),
    ('"steps": [20]', "/steps", None),
    ('"steps": -9223372036854775809', "/steps", 1),
    ('"steps": ' + "9" * 4000, "/steps", 100),
    ('"cfg_scale": 0.99', "/cfg_scale", 1),
    ('"cfg_scale": 31', "/cfg_scale", 30),
    ('"cfg_scale": NaN', "/cfg_scale", None),
    ('"cfg_scale": Infinity', "/cfg_scale", None),
    ('"cfg_scale": -Infinity', "/cfg_scale", None),
    ('"cfg_scale": ' + "9" * 4000, "/cfg_scale", None),
    ('"seed": -1', "/seed", 0),
    ('"seed": 9007199254740992', "/seed", 2**53 - 1),
    ('"seed": 1.0e300', "/seed", None),
    ('"num_images": 0', "/num_images", 1),
    ('"num_images": 9', "/num_images", 8),
    ('"num_images": null', "/num_images", None),
    ('"sampler": "ddim"', "/sampler", "list"),
    ('"sampler": {"name": "euler"}', "/sampler", "list"),
    ('"sampler": "\\ud800"', "/sampler", None),
    ('"sampler": "ddpm"', "/sampler", "list"),
    ('"sampler": "euler_cfg_pp"', "/sampler", "list"),
    ('"sampler": "lcm"', "/sampler", "list"),
    ('"sampler_options": 5', "/sampler_options", None),
    ('"sampler_options": {"eta": -1}', "/sampler_options/eta", 0),
    ('"sampler_options": {"eta": 10.5}', "/sampler_options/eta", 10),
    ('"sampler_options": {"eta": NaN}', "/sampler_options/eta", None),
    ('"sampler_options": {"eta": "1"}', "/sampler_options/eta", None),
    ('"sampler_options": {"eta": ' + "9" * 4000 + "}", "/sampler_options/eta", None),
    ('"sampler_options": {"eta": [[1]]}', "/sampler_options/eta", None),
    ('"sampler_options": {"max_stage": 4}', "/sampler_options/max_stage", 3),
    ('"sampler_options": {"max_stage": true}', "/sampler_options/max_stage", None),
    ('"sampler_options": {"max_stage": ' + "9" * 4000 + "}", "/sampler_options/max_stage", 3),
    (
        '"sampler_options": {"solver_type": "sde"}',
        "/sampler_options/solver_type",
        ["er_sde", "reverse_time_sde", "ode"],
    ),
    ('"sampler_options": {"a/b": 1}', "/sampler_options/a~1b", "list"),
    (
        '"sampler_options": {"\\ud800": 1}',
        "/sampler_options/" + "\N{REPLACEMENT CHARACTER}" * 3,
        "list",
    ),
    ('"sampler": "euler", "sampler_options": {"eta": 1}', "/sampler_options/eta", []),
    ('"sampler": "magic", "sampler_options": {"eta": -1}', "/sampler", "list"),
    ('"scheduler": ""', "/scheduler", "list"),
    ('"image_format": "gif"', "/image_format", ["png", "webp", "jpeg", "avif"]),
    ('"image_quality": 101', "/image_quality", 100),
    ('"metadata": "some"', "/metadata", ["full", "minimal", "none"]),
    ('"resolution": "0x0"', "/resolution", None),
    ('"resolution": "17x17"', "/resolution", None),
    ('"resolution": "1000000000x1000000000"', "/resolution", None),
    ('"resolution": "-128x128"', "/resolution", None),
    ('"resolution": "128x128x128"', "/resolution", None),
    ('"resolution": "١٢٨x١٢٨"', "/resolution", None),
    ('"resolution": ' + '"' + "9" * 9000 + 'x16"', "/resolution", None),
    ('"resolution": 128', "/resolution", None),
    ('"negative_prompt": "\\u0000"', "/negative_prompt", None),
    ('"negative_prompt": "\\udfff"', "/negative_prompt", None),
    ('"negative_prompt": ["blurry"]', "/negative_prompt", None),
    ('"negative_prompt": "' + "a" * 10_001 + '"', "/negative_prompt", 10_000),
    ('"style": "anime"', "/style", None),
    ('"a/b~c": 1', "/a~1b~0c", None),
    ('"\\ud800": 1', "", None),
    ('"": 1', "/", None),
    ('"deep": ' + "[" * 800 + "]" * 800, "/deep", None),
]


@pytest.mark.parametrize(
    ("field", "pointer", "limit"), WRONG_FIELDS, ids=[field[:40] for field, _, _ in WRONG_FIELDS]
)
def test_a_wrong_field_is_named(
    client: httpx2.Client, field: str, pointer: str, limit: Any
) -> None:
    answer = client.post("/generate", content=f"{PROMPT}, {field}}}", headers=JSON)
    assert answer.status_code == 422, answer.text
    problem = read_problem(answer)
    (error,) = problem["errors"]
    assert error["pointer"] == pointer
    assert len(error["detail"]) < 600
    if limit == "list":
        assert len(error["limit"]) >= 4
    else:
        assert error["limit"] == limit


def test_the_refusal_of_a_known_sampler_says_why(client: httpx2.Client) -> None:
    for name, reason in REFUSED_SAMPLERS.items():
        answer = client.post("/generate", json={"prompt": "1girl, smile", "sampler": name})
        (error,) = read_problem(answer)["errors"]
        assert error["detail"] == f'{name} is not offered: {reason}; got "{name}"'
        assert "er_sde" in error["limit"]


def test_every_wrong_option_is_named_at_once(client: httpx2.Client) -> None:
    options = {"eta": 99, "s_noise": "loud", "r": 0.5, "solver_type": "heun"}
    body = {"prompt": "1girl, smile", "sampler": "dpmpp_2m_sde", "sampler_options": options}
    errors = read_problem(client.post("/generate", json=body))["errors"]
    assert [error["pointer"] for error in errors] == [
        "/sampler_options/eta",
        "/sampler_options/s_noise",
        "/sampler_options/r",
    ]
    assert errors[2]["detail"].startswith("dpmpp_2m_sde has no such option; it has eta, s_noise")


@pytest.mark.parametrize(
    ("prompt", "limit"), [("", 1), ("a" * 100_000, 10_000), ("a\x00b", None), (None, None)]
)
def test_a_wrong_prompt_is_named(client: httpx2.Client, prompt: str | None, limit: Any) -> None:
    answer = client.post("/generate", json={"prompt": prompt})
    assert answer.status_code == 422
    (error,) = read_problem(answer)["errors"]
    assert error["pointer"] == "/prompt"
    assert error["limit"] == limit


def test_every_wrong_field_has_one_entry(client: httpx2.Client) -> None:
    wrong = {
        "negative_prompt": 3,
        "resolution": "17x17",
        "steps": 0,
        "cfg_scale": 99,
        "sampler": "ddim",
        "scheduler": "turbo",
        "seed": -1,
        "num_images": 99,
        "image_format": "bmp",
        "image_quality": 0,
        "metadata": "all",
        "loras": 5,
        "colour": 1,
    }
    answer = client.post("/generate", json=wrong)
    problem = read_problem(answer)
    pointers = sorted(error["pointer"] for error in problem["errors"])
    assert pointers == sorted(f"/{name}" for name in ("prompt", *wrong))
    assert problem["detail"] == "14 fields are wrong"


def test_the_value_and_the_limit_are_in_the_text(client: httpx2.Client) -> None:
    answer = client.post("/generate", json={"prompt": "1girl", "steps": 500})
    (error,) = read_problem(answer)["errors"]
    assert "500" in error["detail"]
    assert "100" in error["detail"]


def test_thousands_of_unknown_fields_are_counted_not_listed(client: httpx2.Client) -> None:
    body = json.dumps({"prompt": "1girl", **{f"f{number}": 1 for number in range(30_000)}})
    problem = read_problem(client.post("/generate", content=body, headers=JSON))
    assert problem["detail"] == "30000 fields are wrong; the first 100 are listed"
    assert len(problem["errors"]) == 100


@pytest.mark.parametrize(
    "media_type", [None, "text/plain", "application/xml", "multipart/form-data", "json", "a/b;c=d"]
)
def test_a_body_of_another_type(client: httpx2.Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    answer = client.post("/generate", content=b'{"prompt": "1girl"}', headers=headers)
    assert answer.status_code == 415
    assert read_problem(answer)["code"] == "unsupported_media_type"


def test_a_body_over_the_limit(client: httpx2.Client) -> None:
    answer = client.post("/generate", content=b"a" * 17_000_000, headers=JSON)
    assert answer.status_code == 413
    assert "16000000 bytes" in read_problem(answer)["detail"]
    assert client.get("/livez").status_code == 200


def test_a_body_in_chunks_over_the_limit(client: httpx2.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(270):
            yield b"a" * 65_536

    answer = client.post("/generate", content=chunks(), headers=JSON)
    assert answer.status_code == 413
    read_problem(answer)
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 307),
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
    ],
)
def test_paths_and_methods(client: httpx2.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    if status >= 400:
        read_problem(answer)
    if status == 405:
        assert answer.headers["allow"]


def test_an_id_of_the_right_shape_that_was_never_given(client: httpx2.Client) -> None:
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


@pytest.mark.parametrize(("headers", "status"), HEADERS)
def test_strange_headers(client: httpx2.Client, headers: dict[str, str], status: int) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = client.post("/generate", json={"prompt": "1girl"}, headers=encoded)
    assert answer.status_code == status, answer.text
    assert "preference-applied" not in answer.headers
    if status == 422:
        (error,) = read_problem(answer)["errors"]
        assert "idempotency-key" in error["detail"]


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


@pytest.mark.parametrize("head", RAW.values(), ids=RAW.keys())
def test_bytes_that_no_client_library_would_send(server: ApiServer, head: bytes) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        status = int(connection.makefile("rb").readline().split()[1])
    assert 400 <= status < 500
    assert httpx2.get(f"{server.url}/livez").status_code == 200


def test_the_allowed_methods_are_those_of_the_path_not_of_one_route(client: httpx2.Client) -> None:
    job = client.options("/jobs/01JD6Z1Q8M4T0V7C2N5K9R3XWB")
    assert job.headers["allow"] == "DELETE, GET"
    assert client.put("/images/x.png").headers["allow"] == "GET, HEAD"


HOSTILE_IDS = [
    b"a\tb", b"a b", b"\x1b[31mred", b"caf\xe9", "\u202eabc".encode(), b"a" * 129, b"",
    b"a;b=c", b"../x",
    b"<script>", b"a%0d%0aSet-Cookie:x=1",
]  # fmt: skip


@pytest.mark.parametrize("offered", HOSTILE_IDS)
def test_a_request_id_that_could_do_harm_is_replaced(client: httpx2.Client, offered: bytes) -> None:
    answer = client.get("/jobs/nothing", headers=[(b"x-request-id", offered)])
    assert read_problem(answer)["instance"] == answer.headers["x-request-id"]
    assert answer.headers["x-request-id"].isalnum()
    assert len(answer.headers["x-request-id"]) == 32


LORA_NAMES = [
    "../../etc/passwd", "/etc/passwd", "..\\..\\secret", "a/../../b", "file:///etc/passwd", "~root",
    "a.safetensors", "\u202ea", "a\r\nb", "a\x1b[2J", ".", "..", "%2e%2e%2f", "\\\\host\\share",
]  # fmt: skip


@pytest.mark.parametrize("name", LORA_NAMES)
def test_a_loras_name_is_no_path(client: httpx2.Client, name: str) -> None:
    answer = client.post("/generate", json={"prompt": "1girl", "loras": [{"name": name}]})
    assert answer.status_code == 422
    (error,) = read_problem(answer)["errors"]
    assert error["pointer"] == "/loras/0/name"
    assert "no LoRA of this name" in error["detail"]


@pytest.mark.parametrize(
    "path",
    ["/images/{}", "/images/%2e%2e/{}", "/images/..%5c{}", "/images/.%00./{}", "/images//{}",
     "/static-offline-docs/{}", "/static-offline-docs/%2e%2e/{}", "/problems/..%2f{}"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd"])
def test_no_path_leads_out_of_its_folder(server: ApiServer, path: str, name: str) -> None:
    """Sent as it is: client libraries take the dots out."""
    port = int(server.url.rpartition(":")[2])
    head = f"GET {path.format(name)} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert b"root:" not in answer

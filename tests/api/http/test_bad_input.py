"""Bad input never causes a 500: every error is a problem that names the field."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2

from model.sampler_catalog import REFUSED_SAMPLERS
from tests.support.api_calls import read_problem
from tests.support.cases import check_all

JSON = {"content-type": "application/json"}
PROMPT = '{"prompt": "1girl, blue hair, smile"'


NOT_JSON = {
    "nothing": b"",
    "half an object": b'{"prompt": "1girl"',
    "a comma too many": b'{"prompt": "1girl",}',
    "not UTF-8": b'{"prompt": "\xff\xfe\xfa"}',
    "deep lists": b"[" * 60,
    "deep objects": b'{"a":' * 60,
    "a number of 5000 digits": PROMPT.encode() + b', "seed": ' + b"9" * 5000 + b"}",
    "plain text": b"hello",
}


def test_bodies_that_are_not_json(client: httpx2.Client) -> None:
    def check(body: bytes) -> None:
        answer = client.post("/generate", content=body, headers=JSON)
        assert answer.status_code == (422 if body == b"" else 400)
        read_problem(answer)

    check_all(check, NOT_JSON.values())


NOT_AN_OBJECT = ["null", "[]", '"1girl"', "3", "true", "[[[]]]", "NaN"]


def test_json_that_is_not_an_object(client: httpx2.Client) -> None:
    def check(body: str) -> None:
        answer = client.post("/generate", content=body, headers=JSON)
        assert answer.status_code == 422
        (error,) = read_problem(answer)["errors"]
        assert error["pointer"] == ""

    check_all(check, NOT_AN_OBJECT)


WRONG_FIELDS: list[tuple[str, str, Any]] = [
    ('"steps": 0', "/steps", 1),
    ('"steps": 101', "/steps", 100),
    ('"steps": 1e400', "/steps", None),
    ('"steps": 101.0', "/steps", 100),
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
    ('"seed": -2', "/seed", -1),
    ('"seed": 9007199254740992', "/seed", 2**53 - 1),
    ('"seed": 1.0e300', "/seed", 2**53 - 1),
    ('"seed": 0.5', "/seed", None),
    ('"seed": -1.5', "/seed", None),
    ('"hires": {"scale": 1.5, "steps": 0.0}', "/hires/steps", 1),
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
    ('"deep": ' + "[" * 90 + "]" * 90, "/deep", None),
]


def test_wrong_fields_are_named(client: httpx2.Client) -> None:
    def check(field: str, pointer: str, limit: Any) -> None:
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

    check_all(check, WRONG_FIELDS)


def test_error_of_an_unsupported_sampler_has_the_reason(client: httpx2.Client) -> None:
    for name, reason in REFUSED_SAMPLERS.items():
        answer = client.post("/generate", json={"prompt": "1girl, smile", "sampler": name})
        (error,) = read_problem(answer)["errors"]
        assert error["detail"] == f'{name} is not offered: {reason}; got "{name}"'
        assert "er_sde" in error["limit"]


def test_all_wrong_options_are_named(client: httpx2.Client) -> None:
    options = {"eta": 99, "s_noise": "loud", "r": 0.5, "solver_type": "heun"}
    body = {"prompt": "1girl, smile", "sampler": "dpmpp_2m_sde", "sampler_options": options}
    errors = read_problem(client.post("/generate", json=body))["errors"]
    assert [error["pointer"] for error in errors] == [
        "/sampler_options/eta",
        "/sampler_options/s_noise",
        "/sampler_options/r",
    ]
    assert errors[2]["detail"].startswith("dpmpp_2m_sde has no such option; it has eta, s_noise")


WRONG_PROMPTS: list[tuple[str | None, Any]] = [
    ("", 1),
    ("a" * 100_000, 10_000),
    ("a\x00b", None),
    (None, None),
]


def test_wrong_prompts_are_named(client: httpx2.Client) -> None:
    def check(prompt: str | None, limit: Any) -> None:
        answer = client.post("/generate", json={"prompt": prompt})
        assert answer.status_code == 422
        (error,) = read_problem(answer)["errors"]
        assert error["pointer"] == "/prompt"
        assert error["limit"] == limit

    check_all(check, WRONG_PROMPTS)


def test_each_wrong_field_has_one_entry(client: httpx2.Client) -> None:
    wrong = {
        "negative_prompt": 3,
        "resolution": "17x17",
        "steps": 0,
        "cfg_scale": 99,
        "sampler": "ddim",
        "scheduler": "turbo",
        "seed": -2,
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


def test_detail_has_value_and_limit(client: httpx2.Client) -> None:
    answer = client.post("/generate", json={"prompt": "1girl", "steps": 500})
    (error,) = read_problem(answer)["errors"]
    assert "500" in error["detail"]
    assert "100" in error["detail"]


def test_only_the_first_hundred_errors_are_listed(client: httpx2.Client) -> None:
    body = json.dumps({"prompt": "1girl", **{f"f{number}": 1 for number in range(9_000)}})
    problem = read_problem(client.post("/generate", content=body, headers=JSON))
    assert problem["detail"] == "9000 fields are wrong; the first 100 are listed"
    assert len(problem["errors"]) == 100


OTHER_TYPES = [None, "text/plain", "application/xml", "multipart/form-data", "json", "a/b;c=d"]


def test_unsupported_content_types(client: httpx2.Client) -> None:
    def check(media_type: str | None) -> None:
        headers = {} if media_type is None else {"content-type": media_type}
        answer = client.post("/generate", content=b'{"prompt": "1girl"}', headers=headers)
        assert answer.status_code == 415
        assert read_problem(answer)["code"] == "unsupported_media_type"

    check_all(check, OTHER_TYPES)


def test_body_over_the_limit(client: httpx2.Client) -> None:
    answer = client.post("/generate", content=b"a" * 17_000_000, headers=JSON)
    assert answer.status_code == 413
    assert "16000000 bytes" in read_problem(answer)["detail"]
    assert client.get("/livez").status_code == 200


def test_chunked_body_over_the_limit(client: httpx2.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(270):
            yield b"a" * 65_536

    answer = client.post("/generate", content=chunks(), headers=JSON)
    assert answer.status_code == 413
    read_problem(answer)
    assert client.get("/livez").status_code == 200


LORA_NAMES = [
    "../../etc/passwd", "/etc/passwd", "..\\..\\secret", "a/../../b", "file:///etc/passwd", "~root",
    "a.safetensors", "\u202ea", "a\r\nb", "a\x1b[2J", ".", "..", "%2e%2e%2f", "\\\\host\\share",
]  # fmt: skip


def test_lora_names_are_not_paths(client: httpx2.Client) -> None:
    def check(name: str) -> None:
        answer = client.post("/generate", json={"prompt": "1girl", "loras": [{"name": name}]})
        assert answer.status_code == 422
        (error,) = read_problem(answer)["errors"]
        assert error["pointer"] == "/loras/0/name"
        assert "no LoRA of this name" in error["detail"]

    check_all(check, LORA_NAMES)

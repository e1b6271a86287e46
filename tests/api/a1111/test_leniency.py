"""Bodies that the web UI's stack accepts: pydantic 1 converts values, and JSON needs no type."""

import json
import sys
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from api.a1111.generation.request_fields import ImageToImage, TextToImage
from api.a1111.leniency import read_integer, read_number
from tests.support.a1111_clients import NO_WAIT, TXT2IMG, read_a1111_error
from tests.support.cases import check_all
from tests.support.manual_worker import ManualWorker

REFUSED = object()
"""Stands for a value that pydantic 1 refuses."""

FIELDS: dict[str, Any] = {
    "seed": int,
    "cfg_scale": float,
    "sampler_name": str,
    "tiling": bool,
    "override_settings": dict[str, Any],
    "styles": list[str],
}
"""A field of each type."""

CONVERSIONS: list[tuple[str, Any, Any]] = [
    ("seed", 20, 20),
    ("seed", 20.0, 20),
    ("seed", 20.7, 20),
    ("seed", -0.5, 0),
    ("seed", True, 1),
    ("seed", False, 0),
    ("seed", "20", 20),
    ("seed", " 20 ", 20),
    ("seed", "-1", -1),
    ("seed", "+20", 20),
    ("seed", "020", 20),
    ("seed", "1_000", 1000),
    ("seed", 2**64 - 1, 2**64 - 1),
    ("seed", str(2**70), 2**70),
    ("seed", 1e20, 10**20),
    ("seed", "20.7", REFUSED),
    ("seed", "twenty", REFUSED),
    ("seed", "9" * 5000, REFUSED),
    ("seed", [20], REFUSED),
    ("seed", {}, REFUSED),
    ("cfg_scale", 7, 7.0),
    ("cfg_scale", True, 1.0),
    ("cfg_scale", "7.5", 7.5),
    ("cfg_scale", " 7.5 ", 7.5),
    ("cfg_scale", "7,5", REFUSED),
    ("cfg_scale", "1e1", 10.0),
    ("cfg_scale", [7.5], REFUSED),
    ("sampler_name", "Euler", "Euler"),
    ("sampler_name", 5, "5"),
    ("sampler_name", 5.5, "5.5"),
    ("sampler_name", True, "True"),
    ("sampler_name", ["Euler"], REFUSED),
    ("sampler_name", {"name": "Euler"}, REFUSED),
    ("tiling", True, True),
    ("tiling", 1, True),
    ("tiling", 0, False),
    ("tiling", 1.0, True),
    ("tiling", 2, REFUSED),
    ("tiling", "on", True),
    ("tiling", "Off", False),
    ("tiling", "True", True),
    ("tiling", "FALSE", False),
    ("tiling", "yes", True),
    ("tiling", "n", False),
    ("tiling", "1", True),
    ("tiling", "maybe", REFUSED),
    ("tiling", [], REFUSED),
    ("override_settings", {"a": 1}, {"a": 1}),
    ("override_settings", [], {}),
    ("override_settings", [["a", 1], ["b", None]], {"a": 1, "b": None}),
    ("override_settings", [[1, 2]], {"1": 2}),
    ("override_settings", [1], REFUSED),
    ("override_settings", [[[], 1]], REFUSED),
    ("override_settings", "{}", REFUSED),
    ("override_settings", 1, REFUSED),
    ("styles", [], []),
    ("styles", ["a", 5, 1.5, True], ["a", "5", "1.5", "True"]),
    ("styles", "a", REFUSED),
    ("styles", [None], REFUSED),
    ("styles", [[]], REFUSED),
    ("styles", {"a": 1}, REFUSED),
]


def test_values_are_converted() -> None:
    def check(name: str, value: Any, expected: Any) -> None:
        try:
            converted = getattr(TextToImage.model_validate({name: value}), name)
        except ValidationError:
            converted = REFUSED
        assert converted == expected
        assert type(converted) is type(expected)

    check_all(check, CONVERSIONS)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic 1 needs an older Python")
def test_pydantic_1_converts_values_so() -> None:
    v1 = pytest.importorskip("pydantic.v1")
    model = v1.create_model("Model", **{name: (kind | None, None) for name, kind in FIELDS.items()})

    def check(name: str, value: Any, expected: Any) -> None:
        try:
            converted = getattr(model(**{name: value}), name)
        except v1.ValidationError:
            converted = REFUSED
        assert converted == expected
        assert type(converted) is type(expected)

    check_all(check, CONVERSIONS)


def test_every_field_may_be_null() -> None:
    for model in (TextToImage, ImageToImage):
        empty = model.model_validate({}).model_dump()
        assert model.model_validate(dict.fromkeys(model.model_fields)).model_dump() == empty


def test_limits_still_hold() -> None:
    def check(name: str, value: Any) -> None:
        with pytest.raises(ValidationError):
            ImageToImage.model_validate({name: value})

    check_all(
        check,
        [
            ("batch_size", False),
            ("width", "0"),
            ("height", 1e9),
            ("mask_blur", "-1"),
            ("mask_blur_x", -1),
            ("mask_blur_y", 257),
            ("cfg_scale", "nan"),
            ("denoising_strength", "inf"),
            ("inpainting_mask_invert", 2),
        ],
    )


PROMPT = '{"prompt": "1girl"}'


def test_json_needs_no_content_type(client: httpx2.Client, worker: ManualWorker) -> None:
    for media_type in (None, "application/json; charset=utf-8", "application/vnd.x+json"):
        headers = NO_WAIT | ({"content-type": media_type} if media_type else {})
        answer = client.post(TXT2IMG, content=PROMPT, headers=headers)
        error = read_a1111_error(answer, 504, "job_unfinished")
        assert error["job_id"] in worker.queued_ids(), media_type
    for path, body in (("options", "{}"), ("png-info", '{"image": ""}')):
        assert client.post(f"/sdapi/v1/{path}", content=body).status_code == 200
    assert client.post(TXT2IMG, content="hello").status_code == 400


def test_other_content_types_are_named(client: httpx2.Client) -> None:
    def check(path: str, media_type: str) -> None:
        headers = {"content-type": media_type}
        answer = client.post(f"/sdapi/v1/{path}", content=PROMPT, headers=headers)
        error = read_a1111_error(answer, 415, "unsupported_media_type")
        assert f"Content-Type is {media_type.partition(';')[0]}" in error["detail"]
        assert "application/json" in error["detail"]

    types = ("text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "a/b")
    paths = ("txt2img", "img2img", "options", "png-info")
    check_all(check, [(path, media_type) for path in paths for media_type in types])


def test_a_call_without_a_body_has_any_content_type(client: httpx2.Client) -> None:
    for path in ("interrupt", "skip", "refresh-loras"):
        answer = client.post(f"/sdapi/v1/{path}", headers={"content-type": "text/plain"})
        assert answer.status_code == 200


def test_empty_objects_as_php_writes_them(client: httpx2.Client, worker: ManualWorker) -> None:
    bodies: list[Any] = [[], [["prompt", "solo"]], {"prompt": "1girl", "override_settings": []}]
    bodies.append({"prompt": "1boy", "alwayson_scripts": [], "styles": []})
    for count, body in enumerate(bodies, start=1):
        answer = client.post(TXT2IMG, json=body, headers=NO_WAIT)
        read_a1111_error(answer, 504, "job_unfinished")
        assert len(worker.queued_ids()) == count
    for body in ([], {}, [["sd_vae", "Automatic"]]):
        assert client.post("/sdapi/v1/options", json=body).status_code == 200
    for body in ([1], "prompt", None, 5):
        error = read_a1111_error(
            client.post(TXT2IMG, json=body, headers=NO_WAIT), 422, "validation_failed"
        )
        assert error["detail"][0]["loc"] == ["body"], body


def test_an_image_that_is_empty_has_no_info(client: httpx2.Client) -> None:
    for image in ("", " \n"):
        answer = client.post("/sdapi/v1/png-info", json={"image": image})
        assert answer.json() == {"info": "", "items": {}, "parameters": {}}


def test_a_long_text_is_not_read_as_a_number() -> None:
    """The time to read one grows with the square of its length."""

    class Text(str):
        def __int__(self) -> int:
            raise AssertionError("read as an integer")

        def __float__(self) -> float:
            raise AssertionError("read as a number")

    long, short = Text("1" * 401), Text("1" * 400)
    for read in (read_integer, read_number):
        assert read(long) is long
        with pytest.raises(AssertionError, match="read as"):
            read(short)


def test_huge_seeds_are_folded_with_a_warning(client: httpx2.Client, worker: ManualWorker) -> None:
    seeds = {
        2**53 - 1: 2**53 - 1,
        2**53: 0,
        2**64 - 1: 2**53 - 1,
        "18446744073709551615": 2**53 - 1,
        1.8e19: int(1.8e19) % 2**53,
        10**300: 10**300 % 2**53,
    }
    for seed, folded in seeds.items():
        body = json.dumps({"prompt": "1girl", "seed": seed})
        answer = client.post(TXT2IMG, content=body, headers=NO_WAIT)
        job_id = read_a1111_error(answer, 504, "job_unfinished")["job_id"]
        assert client.get(f"/jobs/{job_id}").json()["request"]["seed"] == folded
        client.delete(f"/jobs/{job_id}")

"""Image calls of the official Python client: parameters, responses and jobs."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from PIL import Image

from tests.support.api_server import ApiServer
from tests.support.fake_engine import FakeEngine
from tests.support.images import encode_file, open_image
from tests.support.openai_clients import fake_worker, openai_client, read_openai_error
from worker.settings import Settings

PROMPT = "1girl, blue hair, smile, hair bow"
EDITS = "/v1/images/edits"


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[FakeEngine]:
    with fake_worker(settings, step_seconds=0.002) as running:
        yield running


@pytest.fixture(scope="module")
def openai(server: ApiServer, engine: FakeEngine) -> Iterator[OpenAI]:
    with openai_client(server.url) as opened_client:
        yield opened_client


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[httpx2.Client]:
    """A client of the module's server; jobs are kept until the end of the module."""
    with httpx2.Client(base_url=server.url, timeout=60) as opened_client:
        yield opened_client


def job_of(client: httpx2.Client, response: Any) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/jobs/{response.job_id}").json()
    return job


def test_response_has_the_images_of_a_job(openai: OpenAI, client: httpx2.Client) -> None:
    raw = openai.images.with_raw_response.generate(prompt=PROMPT, model="gpt-image-1.5")
    response = raw.parse()
    job = job_of(client, response)
    assert job["status"] == "succeeded"
    assert raw.headers["x-job-id"] == job["id"]
    assert raw.headers["location"] == f"/jobs/{job['id']}"
    assert response.data is not None
    (image,) = response.data
    assert image.url is None
    file = base64.b64decode(image.b64_json or "")
    assert open_image(file).size == (128, 128)
    assert client.get(job["images"][0]["url"]).content == file
    assert (response.size, response.output_format, response.background) == (
        "128x128",
        "png",
        "opaque",
    )
    assert response.quality == "medium"
    assert response.created >= 1_790_000_000
    assert image.seed == job["images"][0]["seed"]  # type: ignore[attr-defined]
    usage = response.usage
    assert usage is not None
    assert usage.output_tokens == 64
    assert usage.input_tokens == usage.input_tokens_details.text_tokens > 5
    assert usage.input_tokens_details.image_tokens == 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_urls_instead_of_files(openai: OpenAI, client: httpx2.Client) -> None:
    response = openai.images.generate(prompt=PROMPT, n=2, response_format="url", size="square_hd")
    assert response.data is not None
    assert [image.b64_json for image in response.data] == [None, None]
    for image in response.data:
        assert image.url
        assert open_image(client.get(image.url).content).size == (192, 192)
    first, second = (image.seed for image in response.data)  # type: ignore[attr-defined]
    assert second == first + 1


def test_formats(openai: OpenAI, client: httpx2.Client) -> None:
    names: tuple[Any, ...] = ("png", "webp", "jpeg", "avif")
    for name in names:
        response = openai.images.generate(prompt=PROMPT, output_format=name, output_compression=0)
        assert response.data is not None
        file = base64.b64decode(response.data[0].b64_json or "")
        assert open_image(file).format == name.upper()
        assert response.output_format == name
        request = job_of(client, response)["request"]
        assert (request["image_format"], request["image_quality"]) == (name, 1)


def test_quality_selects_the_number_of_steps(openai: OpenAI, client: httpx2.Client) -> None:
    qualities: list[tuple[Any, int, str]] = [
        ("auto", 20, "medium"),
        ("low", 16, "low"),
        ("standard", 20, "medium"),
        ("hd", 35, "high"),
        ("max", 50, "max"),
        (None, 20, "medium"),
    ]
    for quality, steps, expected in qualities:
        response = openai.images.generate(prompt=PROMPT, quality=quality)
        assert response.quality == expected, quality
        assert job_of(client, response)["request"]["steps"] == steps, quality


def test_steps_of_a_quality_depend_on_the_sampler(openai: OpenAI, client: httpx2.Client) -> None:
    body = {"sampler": "heun"}
    response = openai.images.generate(prompt=PROMPT, quality="max", extra_body=body)
    assert job_of(client, response)["request"]["steps"] == 30


def test_fields_of_generate_are_accepted(openai: OpenAI, client: httpx2.Client) -> None:
    response = openai.images.generate(
        prompt=PROMPT,
        extra_body={
            "negative_prompt": "blurry",
            "seed": 42,
            "steps": 5,
            "cfg_scale": 2.5,
            "sampler": "DPM++ 2M SDE Heun",
            "scheduler": "beta",
            "resolution": "portrait",
            "hires": {"scale": 1.5, "steps": 2},
            "metadata": "none",
            "deterministic": True,
        },
    )
    request = job_of(client, response)["request"]
    expected = {
        "negative_prompt": "blurry",
        "seed": 42,
        "steps": 5,
        "cfg_scale": 2.5,
        "sampler": "dpmpp_2m_sde",
        "scheduler": "beta",
        "width": 112,
        "height": 144,
        "metadata": "none",
        "deterministic": True,
    }
    assert {name: request[name] for name in expected} == expected
    assert request["sampler_options"]["solver_type"] == "heun"
    assert response.quality is None, "the request has steps instead"


def test_parameter_names_of_other_servers(openai: OpenAI, client: httpx2.Client) -> None:
    body = {"num_inference_steps": 7, "guidance_scale": 3}
    response = openai.images.generate(prompt=PROMPT, extra_body=body)
    request = job_of(client, response)["request"]
    assert (request["steps"], request["cfg_scale"]) == (7, 3)
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 1000})
    assert refused.value.param == "num_inference_steps"


def test_sizes(openai: OpenAI) -> None:
    sizes = {
        "auto": "128x128",
        "160x96": "160x96",
        "1024x1024": "192x192",
        "1536x1024": "144x112",
        "256x256": "256x256",
    }
    for size, expected in sizes.items():
        response: Any = openai.images.generate(prompt=PROMPT, size=size)
        assert response.size == expected
        is_noted = any(f"size {size}: using {expected}" in text for text in response.warnings)
        assert is_noted == (size not in ("auto", expected)), size


def test_unsupported_sizes_are_refused(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(prompt=PROMPT, size="1000x1000")
    assert refused.value.param == "size"
    assert "multiple of 16" in refused.value.message


def test_all_invalid_parameters_are_listed(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(
            prompt=PROMPT,
            n=9,
            background="transparent",
            output_format="gif",
            extra_body={
                "moderation": "none",
                "seed": -2,
                "num_images": 2,
                "colour": "red",
                "loras": [{"name": "no"}],
            },
        )
    body: Any = refused.value.body
    assert {wrong["param"] for wrong in body["errors"]} == {
        "background",
        "output_format",
        "moderation",
        "seed",
        "num_images",
        "colour",
        "loras.0.name",
    }
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(prompt=PROMPT, n=9)
    assert (refused.value.param, refused.value.code) == ("n", "invalid_value")


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({}, "prompt", "missing_required_parameter"),
    ({"prompt": None}, "prompt", "missing_required_parameter"),
    ({"prompt": ""}, "prompt", "invalid_value"),
    ({"prompt": "a" * 10_001}, "prompt", "invalid_value"),
    ({"prompt": "(a:99)"}, "prompt", "invalid_value"),
    ({"prompt": 7}, "prompt", "invalid_value"),
    ({"prompt": "x", "colour": 1}, "colour", "unknown_parameter"),
    ({"prompt": "x", "n": 0}, "n", "invalid_value"),
    ({"prompt": "x", "n": "2"}, "n", "invalid_value"),
    ({"prompt": "x", "partial_images": 4}, "partial_images", "invalid_value"),
    ({"prompt": "x", "previews": True}, "previews", "unknown_parameter"),
    ({"prompt": "x", "output_compression": 101}, "output_compression", "invalid_value"),
    ({"prompt": "x", "size": "x"}, "size", "invalid_value"),
    ({"prompt": "x", "size": 128}, "size", "invalid_value"),
    ({"prompt": "x", "resolution": "17x17"}, "resolution", "invalid_value"),
    ({"prompt": "x", "sampler": "magic"}, "sampler", "invalid_value"),
    ({"prompt": "x", "sampler": ["er_sde"]}, "sampler", "invalid_value"),
    ({"prompt": "x", "quality": "best"}, "quality", "invalid_value"),
    ({"prompt": "x", "mask": "abc"}, "mask", "invalid_value"),
    ({"prompt": "x", "init_image": "abc"}, "init_image", "invalid_value"),
]


def test_invalid_parameters_have_a_name_and_a_code(client: httpx2.Client) -> None:
    for body, param, code in INVALID:
        error = read_openai_error(client.post("/v1/images/generations", json=body), 400)
        assert (error["type"], error["param"]) == ("invalid_request_error", param), body
        assert error["code"] == code, body


def test_unreadable_bodies(client: httpx2.Client) -> None:
    json = {"content-type": "application/json"}
    form = {"content-type": "application/x-www-form-urlencoded"}
    for content, headers, status in (
        (b"{", json, 400),
        (b"[]", json, 400),
        (b"", json, 400),
        (b"prompt=x", form, 415),
        (b"a" * 17_000_000, json, 413),
    ):
        response = client.post("/v1/images/generations", content=content, headers=headers)
        read_openai_error(response, status)


def test_parameters_without_a_meaning_are_ignored(openai: OpenAI) -> None:
    response = openai.images.generate(
        prompt=PROMPT,
        background="opaque",
        moderation="low",
        style="vivid",
        user="user-1",
        safety_identifier="user-1",
        complexity="low",
        n=None,
        size=None,
        quality=None,
        response_format=None,
        output_format=None,
        output_compression=None,
        partial_images=2,
    )
    assert response.data


def test_unknown_models_are_refused(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        openai.images.generate(prompt=PROMPT, model="sdxl")
    assert refused.value.code == "model_not_found"


def test_models(openai: OpenAI) -> None:
    assert [model.id for model in openai.models.list()] == ["kirazuri-tiny"]
    assert openai.models.retrieve("dall-e-3").owned_by == "Kirazuri tiny"


# -- edits ---------------------------------------------------------------------------------------


def halves(size: tuple[int, int] = (128, 112)) -> Image.Image:
    """A mask: opaque on the left, transparent on the right."""
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (size[0] // 2, 0, *size))
    return image


def test_transparent_areas_of_the_mask_are_repainted(openai: OpenAI, client: httpx2.Client) -> None:
    start = encode_file(Image.new("RGB", (128, 112), "red"))
    response = openai.images.edit(
        image=start,
        mask=encode_file(halves()),
        prompt=PROMPT,
        n=2,
        extra_body={"seed": 5, "sampler_options": {"eta": 0.5}, "tags": {"general": ["1999"]}},
    )
    request = job_of(client, response)["request"]
    assert (request["width"], request["height"], response.size) == (128, 112, "128x112")
    assert (request["strength"], request["seed"], request["num_images"]) == (1.0, 5, 2)
    assert request["sampler_options"]["eta"] == 0.5
    assert request["prompt"].startswith("1999, ")
    mask = open_image(client.get(f"/images/{request['mask']}").content).convert("L")
    assert (mask.getpixel((10, 50)), mask.getpixel((100, 50))) == (0, 255)
    kept = open_image(client.get(f"/images/{request['init_image']}").content)
    assert kept.getpixel((100, 50)) == (255, 0, 0)
    assert response.usage is not None
    assert response.usage.input_tokens_details.image_tokens == 56


def test_edit_without_a_mask(openai: OpenAI, client: httpx2.Client) -> None:
    start = ("start.jpg", encode_file(Image.new("RGB", (300, 300), "red")), "image/jpeg")
    response = openai.images.edit(image=[start], prompt="2024", size="square", quality="low")
    request = job_of(client, response)["request"]
    assert (request["strength"], request["mask"]) == (0.6, None)
    assert (request["width"], request["steps"], request["prompt"]) == (128, 16, "2024")
    warnings: list[str] = response.warnings  # type: ignore[attr-defined]
    assert any("init_image is 300x300" in warning for warning in warnings)
    strong = openai.images.edit(
        image=start[1],
        mask=encode_file(halves((300, 300))),
        prompt="x",
        extra_body={"strength": 0.3},
    )
    assert job_of(client, strong)["request"]["strength"] == 0.3


INVALID_FORMS: list[tuple[dict[str, str], list[tuple[str, bytes]], str]] = [
    ({"prompt": "x"}, [("mask", encode_file(halves()))], "image"),
    ({"prompt": "x", "image": "text"}, [("mask", encode_file(halves()))], "image"),
    ({"prompt": "x"}, [("image", b"no picture")], "image"),
    (
        {"prompt": "x"},
        [("image[]", encode_file(halves())), ("image[]", encode_file(halves()))],
        "image",
    ),
    ({"prompt": "x"}, [("image", encode_file(halves())), ("mask", b"no picture")], "mask"),
    (
        {"prompt": "x"},
        [("image", encode_file(halves())), ("mask", encode_file(halves((64, 64))))],
        "mask",
    ),
    (
        {"prompt": "x"},
        [("image", encode_file(halves())), ("mask", encode_file(Image.new("RGB", (128, 112))))],
        "mask",
    ),
    ({"prompt": "x"}, [("image", encode_file(halves())), ("depth", b"x")], "depth"),
    ({"prompt": "x", "init_image": "x"}, [("image", encode_file(halves()))], "init_image"),
    ({"prompt": "x", "strength": "2"}, [("image", encode_file(halves()))], "strength"),
    ({"prompt": "x", "n": "many"}, [("image", encode_file(halves()))], "n"),
    ({"prompt": "x", "loras[][name]": "no"}, [("image", encode_file(halves()))], "loras.0.name"),
    ({}, [("image", encode_file(halves()))], "prompt"),
]


def test_invalid_forms(client: httpx2.Client) -> None:
    for fields, files, param in INVALID_FORMS:
        sent = [(name, (f"{name}.png", data)) for name, data in files]
        error = read_openai_error(client.post(EDITS, data=fields, files=sent), 400)
        assert error["param"] == param, (fields, files)


def test_unreadable_forms(client: httpx2.Client) -> None:
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    for content in (b"--y\r\n\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"):
        response = client.post(EDITS, content=content, headers=boundary)
        assert response.status_code == 400, response.text
    no_boundary = {"content-type": "multipart/form-data"}
    response = client.post(EDITS, content=b"--x--", headers=no_boundary)
    assert read_openai_error(response, 400)["code"] == "malformed_form"
    many = [("image", ("a.png", b"x"))] * 25
    error = read_openai_error(client.post(EDITS, data={"prompt": "x"}, files=many), 400)
    assert error["code"] == "malformed_form"
    large = {"image": ("a.png", b"x" * 17_000_000)}
    read_openai_error(client.post(EDITS, data={"prompt": "x"}, files=large), 413)

"""OpenAI's image calls through its own Python client: parameters, answers, jobs behind them."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from PIL import Image

from tests.support.api_server import ApiServer
from tests.support.fake_engine import FakeEngine
from tests.support.openai_clients import fake_worker, is_error, openai_client, opened, png
from worker.settings import Settings

PROMPT = "1girl, blue hair, smile, hair bow"
EDITS = "/v1/images/edits"


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[FakeEngine]:
    with fake_worker(settings, step_seconds=0.002) as running:
        yield running


@pytest.fixture(scope="module")
def openai(server: ApiServer, engine: FakeEngine) -> Iterator[OpenAI]:
    with openai_client(server.url) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[httpx2.Client]:
    """Of the module's server; its jobs stay until the end."""
    with httpx2.Client(base_url=server.url, timeout=20) as opened:
        yield opened


def job_of(client: httpx2.Client, answer: Any) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/jobs/{answer.job_id}").json()
    return job


def test_a_call_is_a_job_with_its_pictures(openai: OpenAI, client: httpx2.Client) -> None:
    raw = openai.images.with_raw_response.generate(prompt=PROMPT, model="gpt-image-1.5")
    answer = raw.parse()
    job = job_of(client, answer)
    assert job["status"] == "succeeded"
    assert raw.headers["x-job-id"] == job["id"]
    assert raw.headers["location"] == f"/jobs/{job['id']}"
    assert answer.data is not None
    (image,) = answer.data
    assert image.url is None
    file = base64.b64decode(image.b64_json or "")
    assert opened(file).size == (128, 128)
    assert client.get(job["images"][0]["url"]).content == file
    assert (answer.size, answer.output_format, answer.background) == ("128x128", "png", "opaque")
    assert answer.quality == "medium"
    assert answer.created >= 1_790_000_000
    assert image.seed == job["images"][0]["seed"]  # type: ignore[attr-defined]
    usage = answer.usage
    assert usage is not None
    assert usage.output_tokens == 64
    assert usage.input_tokens == usage.input_tokens_details.text_tokens > 5
    assert usage.input_tokens_details.image_tokens == 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_urls_where_they_are_asked_for(openai: OpenAI, client: httpx2.Client) -> None:
    answer = openai.images.generate(prompt=PROMPT, n=2, response_format="url", size="square_hd")
    assert answer.data is not None
    assert [image.b64_json for image in answer.data] == [None, None]
    for image in answer.data:
        assert image.url
        assert opened(client.get(image.url).content).size == (192, 192)
    first, second = (image.seed for image in answer.data)  # type: ignore[attr-defined]
    assert second == first + 1


@pytest.mark.parametrize("name", ["png", "webp", "jpeg", "avif"])
def test_formats(openai: OpenAI, client: httpx2.Client, name: Any) -> None:
    answer = openai.images.generate(prompt=PROMPT, output_format=name, output_compression=0)
    assert answer.data is not None
    assert opened(base64.b64decode(answer.data[0].b64_json or "")).format == name.upper()
    assert answer.output_format == name
    request = job_of(client, answer)["request"]
    assert (request["image_format"], request["image_quality"]) == (name, 1)


@pytest.mark.parametrize(
    ("quality", "steps", "answered"),
    [
        ("auto", 20, "medium"),
        ("low", 16, "low"),
        ("standard", 20, "medium"),
        ("hd", 35, "high"),
        ("max", 50, "max"),
        (None, 20, "medium"),
    ],
)
def test_quality_is_steps(
    openai: OpenAI, client: httpx2.Client, quality: Any, steps: int, answered: str
) -> None:
    answer = openai.images.generate(prompt=PROMPT, quality=quality)
    assert answer.quality == answered
    assert job_of(client, answer)["request"]["steps"] == steps


def test_quality_goes_by_the_sampler(openai: OpenAI, client: httpx2.Client) -> None:
    body = {"sampler": "heun"}
    answer = openai.images.generate(prompt=PROMPT, quality="max", extra_body=body)
    assert job_of(client, answer)["request"]["steps"] == 30


def test_our_own_fields_go_beside_openais(openai: OpenAI, client: httpx2.Client) -> None:
    answer = openai.images.generate(
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
    request = job_of(client, answer)["request"]
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
    assert answer.quality is None, "steps were asked for, not a quality"


def test_names_of_other_servers(openai: OpenAI, client: httpx2.Client) -> None:
    body = {"num_inference_steps": 7, "guidance_scale": 3}
    answer = openai.images.generate(prompt=PROMPT, extra_body=body)
    request = job_of(client, answer)["request"]
    assert (request["steps"], request["cfg_scale"]) == (7, 3)
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 1000})
    assert refused.value.param == "num_inference_steps"


@pytest.mark.parametrize(
    ("size", "made"),
    [
        ("auto", "128x128"),
        ("160x96", "160x96"),
        ("1024x1024", "192x192"),
        ("1536x1024", "144x112"),
        ("256x256", "256x256"),
    ],
)
def test_sizes(openai: OpenAI, size: str, made: str) -> None:
    answer = openai.images.generate(prompt=PROMPT, size=size)
    assert answer.size == made
    warnings: list[str] = answer.warnings  # type: ignore[attr-defined]
    assert any(f"size {size}: using {made}" in warning for warning in warnings) == (
        size not in ("auto", made)
    )


def test_a_size_that_is_neither_possible_nor_openais(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(prompt=PROMPT, size="1000x1000")
    assert refused.value.param == "size"
    assert "multiple of 16" in refused.value.message


def test_every_wrong_parameter_is_named(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(
            prompt=PROMPT,
            n=9,
            background="transparent",
            output_format="gif",
            extra_body={
                "moderation": "none",
                "seed": -1,
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


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
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
    ],
)
def test_a_wrong_parameter(
    client: httpx2.Client, body: dict[str, Any], param: str, code: str
) -> None:
    error = is_error(client.post("/v1/images/generations", json=body), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"] == code


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {"content-type": "application/json"}, 400),
        (b"[]", {"content-type": "application/json"}, 400),
        (b"", {"content-type": "application/json"}, 400),
        (b"prompt=x", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"a" * 17_000_000, {"content-type": "application/json"}, 413),
    ],
)
def test_bodies_that_are_none(
    client: httpx2.Client, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/v1/images/generations", content=content, headers=headers)
    is_error(answer, status)


def test_parameters_without_a_meaning_here_are_taken(openai: OpenAI) -> None:
    answer = openai.images.generate(
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
    assert answer.data


def test_a_model_that_nobody_knows(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        openai.images.generate(prompt=PROMPT, model="sdxl")
    assert refused.value.code == "model_not_found"


def test_models(openai: OpenAI) -> None:
    assert [model.id for model in openai.models.list()] == ["kirazuri-tiny"]
    assert openai.models.retrieve("dall-e-3").owned_by == "Kirazuri tiny"


# -- edits ---------------------------------------------------------------------------------------


def halves(size: tuple[int, int] = (128, 112)) -> Image.Image:
    """Opaque on the left, transparent on the right."""
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (size[0] // 2, 0, *size))
    return image


def test_what_is_transparent_is_repainted(openai: OpenAI, client: httpx2.Client) -> None:
    start = png(Image.new("RGB", (128, 112), "red"))
    answer = openai.images.edit(
        image=start,
        mask=png(halves()),
        prompt=PROMPT,
        n=2,
        extra_body={"seed": 5, "sampler_options": {"eta": 0.5}, "tags": {"general": ["1999"]}},
    )
    request = job_of(client, answer)["request"]
    assert (request["width"], request["height"], answer.size) == (128, 112, "128x112")
    assert (request["strength"], request["seed"], request["num_images"]) == (1.0, 5, 2)
    assert request["sampler_options"]["eta"] == 0.5
    assert request["prompt"].startswith("1999, ")
    mask = opened(client.get(f"/images/{request['mask']}").content).convert("L")
    assert (mask.getpixel((10, 50)), mask.getpixel((100, 50))) == (0, 255)
    kept = opened(client.get(f"/images/{request['init_image']}").content)
    assert kept.getpixel((100, 50)) == (255, 0, 0)
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens == 56


def test_a_picture_without_a_mask(openai: OpenAI, client: httpx2.Client) -> None:
    start = ("start.jpg", png(Image.new("RGB", (300, 300), "red")), "image/jpeg")
    answer = openai.images.edit(image=[start], prompt="2024", size="square", quality="low")
    request = job_of(client, answer)["request"]
    assert (request["strength"], request["mask"]) == (0.6, None)
    assert (request["width"], request["steps"], request["prompt"]) == (128, 16, "2024")
    warnings: list[str] = answer.warnings  # type: ignore[attr-defined]
    assert any("init_image is 300x300" in warning for warning in warnings)
    strong = openai.images.edit(
        image=start[1], mask=png(halves((300, 300))), prompt="x", extra_body={"strength": 0.3}
    )
    assert job_of(client, strong)["request"]["strength"] == 0.3


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({"prompt": "x"}, [("mask", png(halves()))], "image"),
        ({"prompt": "x", "image": "text"}, [("mask", png(halves()))], "image"),
        ({"prompt": "x"}, [("image", b"no picture")], "image"),
        ({"prompt": "x"}, [("image[]", png(halves())), ("image[]", png(halves()))], "image"),
        ({"prompt": "x"}, [("image", png(halves())), ("mask", b"no picture")], "mask"),
        ({"prompt": "x"}, [("image", png(halves())), ("mask", png(halves((64, 64))))], "mask"),
        (
            {"prompt": "x"},
            [("image", png(halves())), ("mask", png(Image.new("RGB", (128, 112))))],
            "mask",
        ),
        ({"prompt": "x"}, [("image", png(halves())), ("depth", b"x")], "depth"),
        ({"prompt": "x", "init_image": "x"}, [("image", png(halves()))], "init_image"),
        ({"prompt": "x", "strength": "2"}, [("image", png(halves()))], "strength"),
        ({"prompt": "x", "n": "many"}, [("image", png(halves()))], "n"),
        ({"prompt": "x", "loras[][name]": "no"}, [("image", png(halves()))], "loras.0.name"),
        ({}, [("image", png(halves()))], "prompt"),
    ],
)
def test_a_wrong_form(
    client: httpx2.Client, fields: dict[str, str], files: list[tuple[str, bytes]], param: str
) -> None:
    sent = [(name, (f"{name}.png", data)) for name, data in files]
    error = is_error(client.post(EDITS, data=fields, files=sent), 400)
    assert error["param"] == param


def test_a_body_that_is_no_form(client: httpx2.Client) -> None:
    assert is_error(client.post(EDITS, json={"prompt": "x"}), 415)["code"]
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    for content in (b"--y\r\n\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--"):
        answer = client.post(EDITS, content=content, headers=boundary)
        assert answer.status_code == 400, answer.text
    no_boundary = {"content-type": "multipart/form-data"}
    answer = client.post(EDITS, content=b"--x--", headers=no_boundary)
    assert is_error(answer, 400)["code"] == "malformed_form"
    many = [("image", ("a.png", b"x"))] * 25
    error = is_error(client.post(EDITS, data={"prompt": "x"}, files=many), 400)
    assert error["code"] == "malformed_form"
    large = {"image": ("a.png", b"x" * 17_000_000)}
    is_error(client.post(EDITS, data={"prompt": "x"}, files=large), 413)

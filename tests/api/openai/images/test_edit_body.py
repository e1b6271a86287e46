"""Edits with a JSON body: images are data URLs, or images that this service made."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.types import ImagesResponse
from PIL import Image

from tests.support.api_server import ApiServer
from tests.support.images import draw_image, encode_file, open_image, to_base64
from tests.support.openai_clients import fake_worker, openai_client, read_openai_error
from worker.settings import Settings

EDITS = "/v1/images/edits"
PROMPT = "1girl, pink hair, smile"


def data_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{to_base64(image)}"


def right_half_is_transparent() -> Image.Image:
    image = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (64, 0, 128, 128))
    return image


IMAGE, MASK = data_url(draw_image()), data_url(right_half_is_transparent())


@pytest.fixture(scope="module")
def openai(server: ApiServer, settings: Settings) -> Iterator[OpenAI]:
    with fake_worker(settings, step_seconds=0.002), openai_client(server.url) as connected:
        yield connected


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as connected:
        yield connected


def edit(openai: OpenAI, body: dict[str, Any]) -> ImagesResponse:
    return openai.post("/images/edits", body={"prompt": PROMPT, **body}, cast_to=ImagesResponse)


def request_of(client: httpx2.Client, response: ImagesResponse) -> dict[str, Any]:
    job_id = response.job_id  # type: ignore[attr-defined]
    request: dict[str, Any] = client.get(f"/jobs/{job_id}").json()["request"]
    return request


def test_images_and_masks_are_data_urls(openai: OpenAI, client: httpx2.Client) -> None:
    response = edit(
        openai, {"images": [{"image_url": IMAGE}], "mask": {"image_url": MASK}, "seed": 5, "n": 2}
    )
    request = request_of(client, response)
    assert (request["strength"], request["seed"], request["num_images"]) == (1.0, 5, 2)
    mask = open_image(client.get(f"/images/{request['mask']}").content).convert("L")
    assert (mask.getpixel((10, 50)), mask.getpixel((100, 50))) == (0, 255)
    start = open_image(client.get(f"/images/{request['init_image']}").content)
    assert start.getpixel((5, 5)) == draw_image().getpixel((5, 5))


def test_images_of_this_service_are_found_by_name_and_url(
    openai: OpenAI, client: httpx2.Client
) -> None:
    made = edit(openai, {"images": [{"image_url": IMAGE}], "response_format": "url"})
    assert made.data is not None
    url = str(made.data[0].url)
    name = url.rpartition("/")[2]
    for reference in (name, f"/images/{name}", url, f"{url}?token=1.0123456789abcdef.{'x' * 43}"):
        response = edit(openai, {"images": [{"image_url": reference}]})
        assert request_of(client, response)["init_image"] == name, reference
    masked = edit(openai, {"images": [{"image_url": url}], "mask": {"image_url": MASK}})
    mask_name = request_of(client, masked)["mask"]
    error = read_openai_error(
        client.post(EDITS, json={"prompt": "x", "images": [url], "mask": mask_name}), 400
    )
    assert (error["param"], "no alpha channel" in error["message"]) == ("mask", True)


@pytest.mark.parametrize(
    "body",
    [
        {"images": [IMAGE]},
        {"image": IMAGE},
        {"image": {"url": IMAGE}},
        {"image": [{"image_url": {"url": IMAGE}}], "images": None},
        {"images": [{"image_url": to_base64(draw_image())}]},
    ],
)
def test_other_ways_to_write_a_reference(openai: OpenAI, body: dict[str, Any]) -> None:
    assert edit(openai, body).size == "128x128"


def test_stream(openai: OpenAI, client: httpx2.Client) -> None:
    body = {"prompt": PROMPT, "images": [{"image_url": IMAGE}], "stream": True}
    response = client.post(EDITS, json={**body, "partial_images": 1})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "event: image_edit.partial_image" in response.text
    assert "event: image_edit.completed" in response.text


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({}, "images", "required"),
    ({"images": []}, "images", "required"),
    ({"images": [{"image_url": IMAGE}, {"image_url": IMAGE}]}, "images", "2 images; send one"),
    ({"images": [{"image_url": "https://example.org/a.png"}]}, "images", "not fetched"),
    ({"images": [{"image_url": "file:///etc/passwd"}]}, "images", "not fetched"),
    ({"images": [{"image_url": "ftp://example.org/a.png"}]}, "images", "not fetched"),
    ({"images": [{"image_url": "0" * 40 + ".png"}]}, "images", "there is no image"),
    ({"images": [{"file_id": "file-1"}]}, "images.0.file_id", "files are not kept"),
    ({"images": [{"image_url": 7}]}, "images.0.image_url", "expected an object"),
    ({"images": [{}]}, "images.0", "expected an object"),
    ({"images": 7}, "images.0", "expected an object"),
    ({"image": {"image_url": ""}}, "image.0.image_url", "expected an object"),
    ({"images": [IMAGE], "mask": {"file_id": "file-1"}}, "mask.file_id", "files are not kept"),
    ({"images": [IMAGE], "mask": {"image_url": IMAGE}}, "mask", "no alpha channel"),
    ({"images": [IMAGE], "mask": "http://example.org/m.png"}, "mask", "not fetched"),
    ({"images": [IMAGE], "mask": data_url(Image.new("RGBA", (64, 64)))}, "mask", "is 64x64"),
    ({"images": [IMAGE], "init_image": IMAGE}, "init_image", "as `images`"),
    ({"images": [IMAGE], "colour": "red"}, "colour", "unknown field"),
    ({"images": [IMAGE], "n": 99}, "n", "8"),
]


def test_invalid_bodies(client: httpx2.Client) -> None:
    for body, param, message in INVALID:
        error = read_openai_error(client.post(EDITS, json={"prompt": "x", **body}), 400)
        assert (error["param"], message in error["message"]) == (param, True), (body, error)


def test_all_faults_are_listed(client: httpx2.Client) -> None:
    body = {"images": [{"file_id": "a"}], "mask": {"file_id": "b"}, "init_image": "c"}
    error = read_openai_error(client.post(EDITS, json={"prompt": "x", **body}), 400)
    assert [one["param"] for one in error["errors"]] == [
        *("init_image", "images.0.file_id", "mask.file_id")
    ]


def test_unreadable_bodies(client: httpx2.Client) -> None:
    is_json = {"content-type": "application/json"}
    error = read_openai_error(client.post(EDITS, content=b'{"prompt": ', headers=is_json), 400)
    assert error["code"] == "malformed_json"
    for content in (b'{"prompt": "\xff"}', b"[" * 100_000):
        read_openai_error(client.post(EDITS, content=content, headers=is_json), 400)
    read_openai_error(client.post(EDITS, json=["x"]), 400)
    text = client.post(EDITS, content=encode_file(draw_image()), headers={"content-type": "a/b"})
    error = read_openai_error(text, 415)
    assert "multipart/form-data or application/json" in error["message"]

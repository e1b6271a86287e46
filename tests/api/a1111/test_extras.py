"""`extra-single-image` enlarges images with the Lanczos filter and says what it does not do."""

import asyncio
import base64
import io
import json
from typing import Any

import httpx2
import pytest
from PIL import Image, ImageChops, ImageOps

from tests.support.a1111_clients import read_a1111_error
from tests.support.images import draw_image, encode_file, open_image, to_base64
from worker.images.metadata import COMPOSITE, TRAINED, png_chunks, read_image_texts

EXTRAS = "/sdapi/v1/extra-single-image"
INFOTEXT = "1girl\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 128x128"
LANCZOS = {"upscaler_1": "Lanczos"}


def enlarge(client: httpx2.Client, image: Image.Image | str, **fields: Any) -> dict[str, Any]:
    text = image if isinstance(image, str) else to_base64(image)
    response = client.post(EXTRAS, json={"image": text, **fields})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"html_info", "image", "warnings"}
    return body


def result(body: dict[str, Any]) -> Image.Image:
    image = open_image(base64.b64decode(body["image"]))
    assert image.format == "PNG"
    return image


def test_pixels_are_those_of_lanczos(client: httpx2.Client) -> None:
    start = draw_image((60, 40))
    body = enlarge(client, start, **LANCZOS)
    expected = start.resize((120, 80), Image.Resampling.LANCZOS)
    assert ImageChops.difference(result(body).convert("RGB"), expected).getbbox() is None
    assert (body["html_info"], body["warnings"]) == ("<p>Lanczos: 60x40 to 120x80</p>", [])


SIZES: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({"upscaling_resize": 1.5}, (90, 60)),
    ({"upscaling_resize": "4", "resize_mode": False}, (240, 160)),
    ({"resize_mode": "1", "upscaling_resize_w": "100", "upscaling_resize_h": 90.5}, (100, 90)),
    ({"upscaling_resize": 1}, (60, 40)),
    ({"upscaling_resize": None, "upscaling_crop": ""}, (120, 80)),
    ({"resize_mode": 1}, (512, 512)),
    ({"resize_mode": 1, "upscaling_resize_w": 100, "upscaling_resize_h": 90}, (100, 90)),
    (
        {"resize_mode": 1, "upscaling_resize_w": 90, "upscaling_resize_h": 80}
        | {"upscaling_crop": False},
        (120, 80),
    ),
]


@pytest.mark.parametrize(("fields", "size"), SIZES)
def test_sizes(client: httpx2.Client, fields: dict[str, Any], size: tuple[int, int]) -> None:
    assert result(enlarge(client, draw_image((60, 40)), **LANCZOS, **fields)).size == size


def test_cropping_keeps_the_middle(client: httpx2.Client) -> None:
    start = Image.new("RGB", (64, 32), "red")
    start.paste("blue", (16, 0, 48, 32))
    fields = {"resize_mode": 1, "upscaling_resize_w": 64, "upscaling_resize_h": 64}
    image = result(enlarge(client, start, **LANCZOS, **fields))
    assert image.getpixel((10, 32)) == image.getpixel((54, 32)) == (0, 0, 255)


def test_without_an_upscaler_the_size_is_kept(client: httpx2.Client) -> None:
    for fields in ({}, {"upscaler_1": "none", "resize_mode": 1}):
        body = enlarge(client, draw_image((60, 40)), **fields)
        assert result(body).size == (60, 40)
        assert body["warnings"] == ["upscaler_1 is None: the size is kept; Lanczos enlarges"]


def test_what_is_not_done_is_told(client: httpx2.Client) -> None:
    fields = {"gfpgan_visibility": 1, "codeformer_visibility": 0.5, "codeformer_weight": 1}
    body = enlarge(client, draw_image(), **LANCZOS, **fields, show_extras_results=False, new=1)
    assert body["warnings"] == [
        "gfpgan_visibility: ignored, faces are not restored",
        "codeformer_visibility: ignored, faces are not restored",
    ]
    for warning in body["warnings"]:
        assert f"<p>{warning}</p>" in body["html_info"]


def test_second_upscaler_counts_only_if_it_is_blended_in(client: httpx2.Client) -> None:
    enlarge(client, draw_image(), **LANCZOS, upscaler_2="ESRGAN_4x")
    enlarge(client, draw_image(), **LANCZOS, upscaler_2="Lanczos", extras_upscaler_2_visibility=1)
    sent = {"upscaler_2": "ESRGAN_4x", "extras_upscaler_2_visibility": 0.5}
    refused(client, "upscaler_2", "None and Lanczos", sent)


def refused(client: httpx2.Client, field: str, reason: str, fields: dict[str, Any]) -> None:
    sent = {"image": to_base64(draw_image()), **LANCZOS, **fields}
    error = read_a1111_error(client.post(EXTRAS, json=sent), 422, "validation_failed")
    assert [one["loc"] for one in error["detail"]] == [["body", field]], error
    assert reason in error["errors"], error


WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("upscaler_1", "None and Lanczos", {"upscaler_1": "R-ESRGAN 4x+"}),
    ("upscaler_1", "None and Lanczos", {"upscaler_1": "Latent (bicubic)"}),
    ("upscaling_resize", "less than or equal to 8", {"upscaling_resize": 8.1}),
    ("upscaling_resize", "greater than or equal to 1", {"upscaling_resize": 0}),
    ("upscaling_resize_w", "16384", {"resize_mode": 1, "upscaling_resize_w": 16_385}),
    ("upscaling_resize_h", "greater than", {"resize_mode": 1, "upscaling_resize_h": 0}),
    ("resize_mode", "equal to 1", {"resize_mode": 2}),
    ("image", "required", {"image": None}),
    ("image", "not fetched", {"image": "https://example.org/a.png"}),
    ("image", "there is no image", {"image": "0" * 40 + ".png"}),
    ("image", "cannot be read", {"image": "A" * 400}),
]


@pytest.mark.parametrize(("field", "reason", "fields"), WRONG)
def test_invalid_fields(
    client: httpx2.Client, field: str, reason: str, fields: dict[str, Any]
) -> None:
    refused(client, field, reason, fields)


def test_content_type_may_be_missing(client: httpx2.Client) -> None:
    content = json.dumps({"image": to_base64(draw_image())})
    assert client.post(EXTRAS, content=content).status_code == 200
    headers = {"content-type": "text/plain"}
    response = client.post(EXTRAS, content=content, headers=headers)
    read_a1111_error(response, 415, "unsupported_media_type")


def test_results_are_bounded_like_other_images(client: httpx2.Client) -> None:
    flat = to_base64(encode_file(Image.new("L", (2100, 2100))))
    limit = "is too many pixels"
    refused(client, "upscaling_resize", limit, {"image": flat})
    sides = {"upscaling_resize_w": 16_384, "upscaling_resize_h": 1025}
    refused(client, "upscaling_resize_w", limit, {"resize_mode": 1, **sides})
    long = to_base64(encode_file(Image.new("L", (4000, 40))))
    refused(
        client,
        "upscaling_resize",
        "no side may have more than 16384",
        {"image": long, "upscaling_resize": 5},
    )
    cover = {"resize_mode": 1, "upscaling_crop": False, "upscaling_resize_h": 9000}
    refused(client, "upscaling_resize_w", limit, cover)


@pytest.mark.parametrize("mark", [TRAINED, COMPOSITE, None])
def test_parameters_and_mark_are_kept(client: httpx2.Client, mark: str | None) -> None:
    chunks = png_chunks(INFOTEXT, '{"schema": 1}', mark)
    body = enlarge(client, to_base64(encode_file(draw_image(), pnginfo=chunks)), **LANCZOS)
    with Image.open(io.BytesIO(base64.b64decode(body["image"]))) as image:
        texts = read_image_texts(image)
    assert (texts.infotext, texts.mark, texts.document) == (INFOTEXT, mark, None)


def test_transparent_pixels_become_white(client: httpx2.Client) -> None:
    image = result(enlarge(client, Image.new("RGBA", (8, 8)), **LANCZOS))
    assert (image.mode, image.getpixel((8, 8))) == ("RGB", (255, 255, 255))


def test_images_of_this_service_are_found(client: httpx2.Client, worker: Any) -> None:
    answer = client.post("/generate", json={"prompt": "1girl"}).json()
    worker.claim(answer["id"])
    (stored,) = worker.finish(answer["id"], encode_file(draw_image()))
    assert result(enlarge(client, stored.url, **LANCZOS)).size == (256, 256)


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether an event loop runs in the thread that enlarges, for each image."""
    seen: list[bool] = []
    fit = ImageOps.fit

    def watched(*arguments: Any, **options: Any) -> Any:
        try:
            asyncio.get_running_loop()
            seen.append(True)
        except RuntimeError:
            seen.append(False)
        return fit(*arguments, **options)

    monkeypatch.setattr(ImageOps, "fit", watched)
    return seen


def test_event_loop_is_free_meanwhile(client: httpx2.Client, loops: list[bool]) -> None:
    enlarge(client, draw_image(), **LANCZOS)
    assert loops == [False]

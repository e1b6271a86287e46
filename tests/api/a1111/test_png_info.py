"""`png-info` reads the parameters that web UIs write into image files."""

import base64
from typing import Any

import httpx2
from PIL import Image

from tests.support.a1111_clients import read_a1111_error
from tests.support.foreign_images import FIELD_IMAGES
from tests.support.images import draw_image, encode_file, to_base64
from worker.images.metadata import exif, png_chunks

INFOTEXT = "1girl, 笑顔\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 512x768"
PARAMETERS = {
    "Prompt": "1girl, 笑顔",
    "Negative prompt": "bad",
    "Steps": "20",
    "Sampler": "Euler a",
    "Seed": "5",
    "Size-1": "512",
    "Size-2": "768",
}


def _read(client: httpx2.Client, image: str) -> httpx2.Response:
    return client.post("/sdapi/v1/png-info", json={"image": image})


def test_infotext_is_read_from_every_format(client: httpx2.Client) -> None:
    for file_format in ("png", "jpeg", "webp", "avif"):
        is_png = file_format == "png"
        options: dict[str, Any] = {"exif": exif(INFOTEXT)}
        if is_png:
            options = {"pnginfo": png_chunks(INFOTEXT, '{"schema": 1}')}
        image = encode_file(Image.new("RGB", (16, 16)), file_format.upper(), **options)
        items = {"kirazuri": '{"schema": 1}'} if is_png else {}
        expected = {"info": INFOTEXT, "parameters": PARAMETERS, "items": items}
        assert _read(client, to_base64(image)).json() == expected, file_format


def test_texts_of_other_programs_become_infotext(client: httpx2.Client) -> None:
    data = (FIELD_IMAGES / "swarmui.png").read_bytes()
    found = _read(client, base64.b64encode(data).decode()).json()
    assert found["info"].startswith(
        "1girl, red hair <lora:style/wlop:0.8>\nNegative prompt: lowres"
    )
    assert found["parameters"]["Seed"] == "555"
    assert '"sui_image_params"' in found["items"]["swarmui"]
    graph = (FIELD_IMAGES / "wf-usdu.png").read_bytes()
    found = _read(client, base64.b64encode(graph).decode()).json()
    assert (found["parameters"]["Prompt"], found["parameters"]["Steps"]) == (
        "1girl, red hair",
        "20",
    )
    assert "UltimateSDUpscale" in found["items"]["notes"]
    assert found["items"]["prompt"].startswith('{"3"')


def test_a_text_that_is_no_infotext_has_no_parameters(client: httpx2.Client) -> None:
    data = (FIELD_IMAGES / "single-line.png").read_bytes()
    found = _read(client, base64.b64encode(data).decode()).json()
    assert found["info"].startswith("masterpiece, 1girl, red hair,.Negative")
    assert (found["parameters"], found["items"]) == ({}, {})


def test_image_without_metadata(client: httpx2.Client) -> None:
    found = _read(client, to_base64(draw_image())).json()
    assert found == {"info": "", "items": {}, "parameters": {}}


def test_unreadable_images_are_refused(client: httpx2.Client) -> None:
    for image in ("nothing", "http://127.0.0.1/a.png", base64.b64encode(b"GIF89a").decode()):
        error = read_a1111_error(_read(client, image), 422, "validation_failed")
        assert [entry["loc"] for entry in error["detail"]] == [["body", "image"]]

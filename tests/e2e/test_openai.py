"""The official OpenAI packages for Python and Node against the running service."""

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image

from tests.support.images import encode_file, open_image
from tests.support.openai_clients import openai_client
from tests.support.paths import ROOT
from tests.support.pictures import QUALITY, event_lines, finished, picture, pixels, submit
from tests.support.snippets import snippets
from training.evaluation.rules import read_colors

pytestmark = pytest.mark.timeout(240)

NODE_CLIENT = ROOT / "tests/clients/node"
PAGE = ROOT / "docs/openai.md"
LOOK = "twintails, red eyes, smile, white serafuku, pink background"


@pytest.fixture(scope="module")
def url(service: httpx2.Client) -> str:
    return str(service.base_url).rstrip("/")


@pytest.fixture(scope="module")
def openai(url: str) -> Iterator[OpenAI]:
    with openai_client(url) as client:
        yield client


def decode(b64_json: str | None) -> Image.Image:
    assert b64_json
    return open_image(base64.b64decode(b64_json))


def transparent_top() -> Image.Image:
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 128, 64))
    return mask


def test_images_are_those_of_generate(openai: OpenAI, service: httpx2.Client) -> None:
    """`POST /generate` makes the same pixels from the same request."""
    fields: dict[str, Any] = {"seed": 7, "steps": 16, "deterministic": True}
    prompt = f"{QUALITY}, green hair, {LOOK}"
    response: Any = openai.images.generate(prompt=prompt, n=2, size="128x128", extra_body=fields)
    first, second = (decode(image.b64_json) for image in response.data)
    assert read_colors(first)["hair_color"] == read_colors(second)["hair_color"] == "green hair"
    assert (pixels(first) != pixels(second)).any()
    assert [image.seed for image in response.data] == [7, 8]
    own = finished(service, submit(service, prompt=prompt, num_images=2, **fields))
    assert (pixels(picture(service, own, 1)) == pixels(second)).all()
    job = service.get(f"/jobs/{response.job_id}").json()
    assert {**job["request"], "image_quality": 90} == own["request"]
    assert job["timings"]["denoise"] > 0
    with service.stream("GET", f"/jobs/{response.job_id}/events") as stream:
        names = [line[7:] for line in event_lines(stream) if line.startswith("event: ")]
    assert names[0] == "queued"
    assert names[-1] == "succeeded"


def test_negative_prompt_and_quality_have_an_effect(openai: OpenAI, service: httpx2.Client) -> None:
    plain, negative = [
        openai.images.generate(
            prompt=f"{QUALITY}, blue hair, smile",
            quality="low",
            extra_body={"seed": 5, "negative_prompt": words},
        )
        for words in ("", "blue background, blurry")
    ]
    assert plain.data
    assert negative.data
    images = [decode(response.data[0].b64_json) for response in (plain, negative) if response.data]
    assert (pixels(images[0]) != pixels(images[1])).any()
    assert "Steps: 16," in images[0].info["parameters"]
    assert "Negative prompt: blue background, blurry" in images[1].info["parameters"]


def test_opaque_areas_of_the_mask_stay_and_the_rest_changes(
    openai: OpenAI, service: httpx2.Client
) -> None:
    prompt = f"{QUALITY}, blue hair, {LOOK}"
    base = finished(service, submit(service, prompt=prompt, seed=7, steps=12))
    start = picture(service, base)
    response = openai.images.edit(
        image=("girl.png", encode_file(start)),
        mask=("mask.png", encode_file(transparent_top())),
        prompt=f"{QUALITY}, pink hair, {LOOK}",
        extra_body={"seed": 8, "steps": 12},
    )
    assert response.data
    result = decode(response.data[0].b64_json)
    assert (pixels(result)[64:] == pixels(start)[64:]).all()
    assert numpy.abs(pixels(result)[:64] - pixels(start)[:64]).mean() > 5
    whole = openai.images.edit(
        image=encode_file(start),
        prompt=f"{QUALITY}, pink hair, {LOOK}",
        extra_body={"strength": 0.5},
    )
    assert whole.data
    assert read_colors(decode(whole.data[0].b64_json))["hair_color"] == "pink hair"


def test_previews_approach_the_image(openai: OpenAI) -> None:
    stream = openai.images.generate(
        prompt=f"{QUALITY}, blonde hair, {LOOK}",
        stream=True,
        partial_images=3,
        extra_body={"seed": 3},
    )
    *partial, done = stream
    final = decode(done.b64_json)
    assert read_colors(final)["hair_color"] == "blonde hair"
    small = pixels(final.resize((16, 16), Image.Resampling.BOX))
    errors = [numpy.abs(pixels(decode(event.b64_json)) - small).mean() for event in partial]
    assert len(errors) == 3, errors
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 40


def test_invalid_parameter_raises_an_exception_of_the_package(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(prompt="x", background="transparent")
    assert refused.value.param == "background"


# -- Node ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside of the repository with the packages of the lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for file in NODE_CLIENT.iterdir():
        shutil.copy(file, folder)
    command = ["npm", "ci", "--omit=dev", "--no-audit", "--no-fund", "--prefer-offline"]
    command += ["--ignore-scripts"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def run_node(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(
        ["node", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_node_package(url: str, service: httpx2.Client, node_folder: Path) -> None:
    prompt = f"{QUALITY}, pink hair, {LOOK}"
    blue = f"{QUALITY}, blue hair, {LOOK}"
    base = finished(service, submit(service, prompt=blue, seed=7, steps=8))
    start = picture(service, base)
    start.save(node_folder / "girl.png")
    transparent_top().save(node_folder / "mask.png")
    results = json.loads(run_node(node_folder, "images.mjs", url, "girl.png", "mask.png", prompt))

    generated = results["generated"]
    image = decode(generated["data"][0]["b64_json"])
    assert (image.format, image.size) == ("WEBP", (192, 192))
    assert generated["size"] == "192x192"
    assert generated["usage"]["output_tokens"] == 144
    assert pixels(image).std() > 30
    request = service.get(f"/jobs/{generated['job_id']}").json()["request"]
    assert (request["seed"], request["steps"]) == (7, 8)

    urls = [data["url"] for data in results["linked"]["data"]]
    assert len(urls) == 2
    for link in urls:
        image = Image.open(io.BytesIO(service.get(link).content))
        assert read_colors(image)["hair_color"] == "pink hair"

    edited = decode(results["edited"]["data"][0]["b64_json"])
    assert (pixels(edited)[64:] == pixels(start)[64:]).all()
    request = service.get(f"/jobs/{results['edited']['job_id']}").json()["request"]
    assert request["sampler_options"]["eta"] == 0.5

    *partial, done = results["streamed"]
    assert [event["type"] for event in partial] == ["image_generation.partial_image"] * 2
    assert done["type"] == "image_generation.completed"
    streamed = decode(done["b64_json"])
    linked = Image.open(io.BytesIO(service.get(urls[0]).content))
    assert numpy.abs(pixels(streamed) - pixels(linked)).max() <= 1, "the same seed"

    assert results["models"] == ["kirazuri-tiny"]
    errors = results["errors"]
    assert {name: error["status"] for name, error in errors.items()} == {
        "wrong": 400,
        "unknown": 404,
        "nowhere": 404,
    }
    assert errors["wrong"]["param"] == "size"
    assert errors["unknown"]["code"] == "model_not_found"
    assert {error["tries"] for error in errors.values()} == {1}


def test_the_example_of_the_page(url: str, node_folder: Path) -> None:
    (code,) = [one.code for one in snippets(PAGE) if one.language == "js"]
    (node_folder / "example.mjs").write_text(code.replace("http://localhost:8000", url))
    run_node(node_folder, "example.mjs")
    assert (node_folder / "blue.png").read_bytes().startswith(b"\x89PNG")

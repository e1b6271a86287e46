"""Streams of the official Python client: previews, finished images, errors."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import APIError, BadRequestError, OpenAI
from PIL import Image

from tests.support.api_server import ApiServer
from tests.support.images import encode_file, open_image
from tests.support.openai_clients import RecordedExchanges, fake_worker, openai_client
from worker.settings import Settings

PROMPT = "1girl, blue hair, smile, hair bow"


@pytest.fixture(scope="module")
def openai(server: ApiServer, settings: Settings) -> Iterator[OpenAI]:
    with fake_worker(settings, step_seconds=0.005), openai_client(server.url) as connected:
        yield connected


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as connected:
        yield connected


def test_previews_come_before_the_image(openai: OpenAI, client: httpx2.Client) -> None:
    stream = openai.images.generate(
        prompt=PROMPT, stream=True, partial_images=3, output_format="webp", quality="low"
    )
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert stream.response.headers["x-accel-buffering"] == "no"
    job_id = stream.response.headers["x-job-id"]
    *partial, done = list(stream)
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 3
    for index, event in enumerate(partial):
        assert event.type == "image_generation.partial_image"
        assert event.partial_image_index == index
        assert event.output_format == "webp"
        assert open_image(base64.b64decode(event.b64_json)).size == (16, 16)
        assert (event.size, event.quality, event.background) == ("128x128", "low", "opaque")
    assert done.type == "image_generation.completed"
    assert (done.size, done.quality, done.output_format) == ("128x128", "low", "webp")
    assert done.usage.output_tokens == 64
    assert done.usage.input_tokens == done.usage.input_tokens_details.text_tokens > 5
    job = client.get(f"/jobs/{job_id}").json()
    assert client.get(job["images"][0]["url"]).content == base64.b64decode(done.b64_json)
    assert done.created_at >= 1_790_000_000
    assert done.seed == job["images"][0]["seed"]  # type: ignore[attr-defined]


def test_number_of_previews(openai: OpenAI) -> None:
    for number in (None, 0, 1):
        stream = openai.images.generate(prompt=PROMPT, stream=True, partial_images=number)
        types = [event.type.rpartition(".")[2] for event in stream]
        assert types == ["partial_image"] * (number or 0) + ["completed"]


def test_stream_of_an_edit(openai: OpenAI) -> None:
    start = encode_file(Image.new("RGB", (128, 128), "red"))
    stream = openai.images.edit(image=start, prompt=PROMPT, n=2, stream=True, partial_images=1)
    events: list[Any] = list(stream)
    assert [event.type for event in events[-2:]] == ["image_edit.completed"] * 2
    assert [event.image_index for event in events[-2:]] == [0, 1]
    assert events[0].type == "image_edit.partial_image"
    assert events[-1].usage.input_tokens_details.image_tokens == 64


def test_invalid_parameters_are_not_a_stream(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(prompt=PROMPT, stream=True, size="17x17")
    assert refused.value.param == "size"


@pytest.mark.usefixtures("openai")
def test_later_error_is_the_last_event(server: ApiServer) -> None:
    exchanges = RecordedExchanges()
    with openai_client(server.url, exchanges) as openai:
        stream = openai.images.generate(prompt="a nan b", stream=True)
        with pytest.raises(APIError) as failed:
            list(stream)
    assert failed.value.code == "non_finite"
    body: Any = failed.value.body
    assert body["job_id"] == stream.response.headers["x-job-id"]
    assert len(exchanges.requests) == 1

"""Parameters of image calls."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from tests.support.api_server import ApiServer
from tests.support.images import draw_image, encode_file
from tests.support.openai_clients import fake_worker, openai_client
from worker.settings import Settings

PROMPT = "1girl, blue hair, smile, hair bow"


@pytest.fixture
def openai(server: ApiServer, settings: Settings, redis_url: str) -> Iterator[OpenAI]:
    with fake_worker(settings, step_seconds=0.002), openai_client(server.url) as opened:
        yield opened


def test_the_default_of_response_format_depends_on_the_model(
    openai: OpenAI, client: httpx2.Client
) -> None:
    def call(method: Any, model: Any, **given: Any) -> str:
        image = method(prompt=PROMPT, model=model, **given).data[0]
        assert (image.url is None) != (image.b64_json is None)
        if image.url:
            assert client.get(image.url).status_code == 200
        return "url" if image.url else "b64_json"

    generate = openai.images.generate
    edit = partial(openai.images.edit, image=("a.png", encode_file(draw_image())))
    models = ("dall-e-2", "dall-e-3", "gpt-image-1", "kirazuri-tiny", None)
    expected = ["url", "url", "b64_json", "b64_json", "b64_json"]
    assert [call(generate, model) for model in models] == expected
    assert [call(generate, model, response_format=None) for model in models] == expected
    assert [call(edit, model) for model in models] == expected
    assert call(generate, "dall-e-3", response_format="b64_json") == "b64_json"
    assert call(generate, "gpt-image-1", response_format="url") == "url"

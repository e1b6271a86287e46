"""Responses of the official Python client: the tool for images, streams, errors and jobs."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import APIError, NotFoundError, OpenAI
from PIL import Image

from tests.support.api_server import ApiServer
from tests.support.images import draw_image, open_image, to_base64
from tests.support.openai_clients import fake_worker, openai_client, read_openai_error
from worker.settings import Settings

RESPONSES = "/v1/responses"
PROMPT = "1girl, blue hair, smile, hair bow"
DATA_URL = f"data:image/png;base64,{to_base64(draw_image())}"
TEXT = {"type": "input_text", "text": PROMPT}
IMAGE = {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def tool(**fields: Any) -> dict[str, Any]:
    return {"type": "image_generation", **fields}


@pytest.fixture(scope="module")
def openai(server: ApiServer, settings: Settings) -> Iterator[OpenAI]:
    with fake_worker(settings, step_seconds=0.005), openai_client(server.url) as connected:
        yield connected


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as connected:
        yield connected


def ask(openai: OpenAI, given: Any, **options: Any) -> Any:
    return openai.responses.create(model="kirazuri-tiny", input=given, **options)


def request_of(client: httpx2.Client, response: Any) -> dict[str, Any]:
    request: dict[str, Any] = client.get(f"/jobs/{response.job_id}").json()["request"]
    return request


def test_output_has_the_image_and_a_message(openai: OpenAI, client: httpx2.Client) -> None:
    response = ask(
        openai,
        PROMPT,
        tools=[tool(size="128x128", quality="low", output_format="webp", model="gpt-image-1")],
        instructions="Be kind.",
        metadata={"chat": "7"},
        extra_body={"seed": 5},
    )
    request = request_of(client, response)
    assert (request["prompt"], request["seed"], request["steps"]) == (PROMPT, 5, 16)
    made, message = response.output
    assert (made.type, made.status, made.action) == (
        "image_generation_call",
        "completed",
        "generate",
    )
    assert (made.output_format, made.quality, made.size) == ("webp", "low", "128x128")
    assert made.revised_prompt == PROMPT
    file = base64.b64decode(made.result)
    assert open_image(file).format == "WEBP"
    url = response.output_text.partition("](")[2].removesuffix(")")
    assert client.get(url).content == file
    assert (message.role, message.status) == ("assistant", "completed")
    assert (response.status, response.error, response.metadata) == (
        "completed",
        None,
        {"chat": "7"},
    )
    assert response.id == f"resp_{response.job_id}"
    assert response.usage.output_tokens == 64
    assert response.usage.total_tokens == 64 + response.usage.input_tokens


def test_only_the_last_message_of_the_user_counts(openai: OpenAI, client: httpx2.Client) -> None:
    response = ask(
        openai,
        [
            said("1boy", "developer"),
            said([TEXT, IMAGE]),
            {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AA"},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "1boy", "annotations": []}],
            },
            {"role": "user", "content": PROMPT},
            {"type": "function_call_output", "call_id": "a", "output": "1boy"},
        ],
        previous_response_id="resp_1",
        extra_body={"n": 2, "top_k": 1},
    )
    request = request_of(client, response)
    assert (request["prompt"], request["init_image"], request["num_images"]) == (PROMPT, None, 2)
    kinds = [item.type for item in response.output]
    assert kinds == ["image_generation_call", "image_generation_call", "message"]
    assert response.output_text.count("![seed ") == 2
    assert "ignored: top_k" in response.warnings
    assert any("previous_response_id is ignored" in warning for warning in response.warnings)


def test_image_in_the_message_is_edited(openai: OpenAI, client: httpx2.Client) -> None:
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    masked = {"input_image_mask": {"image_url": f"data:image/png;base64,{to_base64(mask)}"}}
    response = ask(openai, [said([IMAGE, TEXT])], tools=[tool(action="edit", **masked)])
    request = request_of(client, response)
    assert (request["strength"], response.output[0].action) == (1.0, "edit")
    level = open_image(client.get(f"/images/{request['mask']}").content).convert("L")
    assert (level.getpixel((10, 50)), level.getpixel((100, 50))) == (0, 255)
    plain = ask(openai, [said([IMAGE, TEXT])])
    assert request_of(client, plain)["strength"] == 0.6
    fresh = ask(openai, [said([IMAGE, TEXT])], tools=[tool(action="generate")])
    assert request_of(client, fresh)["init_image"] is None


def test_stream_has_previews_images_and_the_message(openai: OpenAI) -> None:
    stream = ask(
        openai, PROMPT, stream=True, tools=[tool(partial_images=2)], extra_body={"steps": 12}
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == [*range(len(events))]
    assert [event.type.removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added"),
        *("image_generation_call.in_progress", "image_generation_call.generating"),
        *["image_generation_call.partial_image"] * 2,
        *("image_generation_call.completed", "output_item.done", "output_item.added"),
        *("content_part.added", "output_text.delta", "output_text.done", "content_part.done"),
        *("output_item.done", "completed"),
    ]
    previews = [event for event in events if "partial_image" in event.type]
    assert [event.partial_image_index for event in previews] == [0, 1]
    assert open_image(base64.b64decode(previews[0].partial_image_b64)).size == (16, 16)
    assert {event.item_id for event in previews} == {events[2].item.id}
    assert (events[2].item.status, events[2].item.result) == ("in_progress", None)
    response = events[-1].response
    assert response.output[0].result == events[8].item.result
    assert response.job_id == stream.response.headers["x-job-id"]
    assert response.usage.output_tokens == 64


def test_the_package_puts_a_stream_together(openai: OpenAI) -> None:
    with openai.responses.stream(model="kirazuri-tiny", input=PROMPT) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert response.output_text.startswith("![seed ")
    assert response.output[0].type == "image_generation_call"


def test_later_error_ends_the_stream(openai: OpenAI) -> None:
    events = list(ask(openai, "a nan b", stream=True))
    error, failed = events[-2:]
    assert (error.type, error.code) == ("error", "non_finite")
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert failed.response.error.code == "non_finite"
    assert error.job_id == failed.response.job_id
    with pytest.raises(APIError):
        ask(openai, "a nan b")


INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "expected a list"),
    ({"input": []}, "input", "expected a list"),
    ({"input": 7}, "input", "expected a list"),
    ({"input": " "}, "input", "has no text"),
    ({"input": "x" * 10_001}, "input", "10000"),
    ({"input": [said("x", "robot")]}, "input.0.role", "got 'robot'"),
    ({"input": [{"x": 1}]}, "input.0.role", "expected one of"),
    ({"input": [said("x", "system")]}, "input", "no message of the user"),
    ({"input": [said([TEXT, IMAGE, IMAGE])]}, "input.0.content", "2 images; send one"),
    (
        {"input": [said([TEXT, {"type": "input_image", "image_url": "http://example.org/a.png"}])]},
        "input.0.content.1",
        "not fetched",
    ),
    (
        {"input": [said([TEXT, {"type": "input_image", "file_id": "file-1"}])]},
        "input.0.content.1.file_id",
        "files are not kept",
    ),
    ({"input": [said([{"type": "input_file"}, TEXT])]}, "input.0.content.0", "'input_file' cannot"),
    ({"input": "x", "tools": {}}, "tools", "must be a list"),
    ({"input": "x", "tools": [7, tool(size="17x17")]}, "tools.1.size", "17x17"),
    ({"input": "x", "tools": [tool(quality="best")]}, "tools.0.quality", "low"),
    ({"input": "x", "tools": [tool(output_format="gif")]}, "tools.0.output_format", "png"),
    ({"input": "x", "tools": [tool(partial_images=4)]}, "tools.0.partial_images", "3"),
    ({"input": "x", "tools": [tool(background="transparent")]}, "tools.0.background", "opaque"),
    ({"input": "x", "tools": [tool(action="draw")]}, "tools.0.action", "expected one of"),
    ({"input": "x", "tools": [tool(action="edit")]}, "tools.0.action", "no image"),
    (
        {"input": [said([TEXT, IMAGE])], "tools": [tool(input_image_mask={"image_url": DATA_URL})]},
        "tools.0.input_image_mask",
        "no alpha channel",
    ),
    (
        {"input": "x", "tools": [tool(input_image_mask={"file_id": "f"})]},
        "tools.0.input_image_mask.file_id",
        "files are not kept",
    ),
    ({"input": "x", "background": True}, "background", "not kept"),
    ({"input": "x", "n": 99}, "n", "8"),
    ({"input": "x", "stream": 1}, "stream", "boolean"),
]


def test_invalid_bodies(client: httpx2.Client) -> None:
    for body, param, message in INVALID:
        error = read_openai_error(client.post(RESPONSES, json=body), 400)
        assert (error["param"], message in error["message"]) == (param, True), (body, error)


def test_a_mask_needs_an_image(client: httpx2.Client) -> None:
    mask = tool(
        input_image_mask={"image_url": f"data:;base64,{to_base64(Image.new('RGBA', (9, 9)))}"}
    )
    error = read_openai_error(client.post(RESPONSES, json={"input": "x", "tools": [mask]}), 400)
    assert error["param"] == "tools.0.input_image_mask"


def test_unknown_models(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as unknown:
        openai.responses.create(model="gpt-9", input=PROMPT)
    assert unknown.value.code == "model_not_found"


def test_values_of_the_client_can_always_be_encoded(client: httpx2.Client) -> None:
    body = {"input": PROMPT, "metadata": {"\ud800": "\udfff", "a": 1}, "\ud800": 1}
    for stream in (False, True):
        content = json.dumps({**body, "stream": stream})
        headers = {"content-type": "application/json"}
        assert client.post(RESPONSES, content=content, headers=headers).status_code == 200


# -- requests of chat interfaces -------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}}


def test_texts_make_no_job(openai: OpenAI, client: httpx2.Client) -> None:
    before = client.get("/jobs", params={"limit": 100}).json()["items"]
    title = ask(openai, [said(PROMPT)], instructions="Write a short title for this chat.")
    assert title.output_text == PROMPT
    task = said("Write a short title for this chat.")
    assert ask(openai, [said(PROMPT), said("ok", "assistant"), task]).output_text == PROMPT
    wanted: Any = {"format": {"type": "json_schema", "name": "t", "schema": SCHEMA}}
    made = ask(openai, PROMPT, text=wanted)
    assert json.loads(made.output_text) == {"title": PROMPT}
    assert (made.job_id, made.usage.total_tokens, made.status) == (None, 0, "completed")
    function = {"type": "function", "name": "keep", "parameters": SCHEMA}
    (call,) = ask(openai, PROMPT, tools=[function], tool_choice="required").output
    assert (call.type, call.name) == ("function_call", "keep")
    assert json.loads(call.arguments) == {"title": PROMPT}
    kinds = [event.type for event in ask(openai, [task], stream=True)]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    assert client.get("/jobs", params={"limit": 100}).json()["items"] == before

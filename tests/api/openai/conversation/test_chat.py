"""Chat completions of the official Python client: prompts, edits, streams, errors and jobs."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import APIError, BadRequestError, NotFoundError, OpenAI

from tests.support.api_server import ApiServer
from tests.support.images import draw_image, encode_file, open_image, to_base64
from tests.support.openai_clients import fake_worker, openai_client, read_openai_error
from worker.settings import Settings

CHAT = "/v1/chat/completions"
PROMPT = "1girl, blue hair, smile, hair bow"
DATA_URL = f"data:image/png;base64,{to_base64(draw_image())}"


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def image_part(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url}


@pytest.fixture(scope="module")
def openai(server: ApiServer, settings: Settings) -> Iterator[OpenAI]:
    with fake_worker(settings, step_seconds=0.002), openai_client(server.url) as connected:
        yield connected


@pytest.fixture(scope="module")
def client(server: ApiServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as connected:
        yield connected


def ask(openai: OpenAI, *messages: dict[str, Any], **options: Any) -> Any:
    listed: Any = messages
    return openai.chat.completions.create(model="kirazuri-tiny", messages=listed, **options)


def job_of(client: httpx2.Client, answer: Any) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/jobs/{answer.job_id}").json()
    return job


def url_in(content: str) -> str:
    assert content.startswith("![seed "), content
    return content.partition("](")[2].removesuffix(")")


def jobs(client: httpx2.Client) -> int:
    return len(client.get("/jobs", params={"limit": 100}).json()["items"])


def test_answer_has_the_image_and_its_url(openai: OpenAI, client: httpx2.Client) -> None:
    answer = ask(openai, said("Be kind.", "system"), said(PROMPT), seed=5, temperature=0.3)
    job = job_of(client, answer)
    assert (job["request"]["prompt"], job["request"]["seed"]) == (PROMPT, 5)
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    file = client.get(url_in(choice.message.content)).content
    assert open_image(file).size == (128, 128)
    (part,) = choice.message.images
    assert part["type"] == "image_url"
    assert part["image_url"]["url"] == f"data:image/png;base64,{to_base64(file)}"
    assert answer.id == f"chatcmpl-{job['id']}"
    assert answer.model == "kirazuri-tiny"
    usage = answer.usage
    assert usage.completion_tokens == usage.completion_tokens_details.image_tokens == 64
    assert usage.prompt_tokens == usage.prompt_tokens_details.text_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_only_the_last_message_of_the_user_counts(openai: OpenAI, client: httpx2.Client) -> None:
    answer = ask(
        openai,
        said("1boy", "system"),
        said("1boy", "developer"),
        said([{"type": "text", "text": "1boy"}, image_part({"url": DATA_URL})]),
        said(f"![x]({DATA_URL})", "assistant"),
        said([{"type": "text", "text": PROMPT}, {"type": "text", "text": "solo"}]),
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "1boy", "tool_call_id": "a"},
        said("Answer in English.", "system"),
    )
    request = job_of(client, answer)["request"]
    assert (request["prompt"], request["init_image"]) == (f"{PROMPT}\nsolo", None)


def test_long_history_is_not_read(openai: OpenAI, client: httpx2.Client) -> None:
    history = [said([image_part({"url": "https://example.org/a.png"})])] * 500
    answer = ask(openai, *history, {"role": "nobody"}, said(PROMPT))
    assert job_of(client, answer)["request"]["init_image"] is None


def test_image_in_the_message_is_edited(openai: OpenAI, client: httpx2.Client) -> None:
    text = {"type": "text", "text": PROMPT}
    answer = ask(openai, said([image_part({"url": DATA_URL, "detail": "low"}), text]))
    request = job_of(client, answer)["request"]
    assert (request["prompt"], request["strength"]) == (PROMPT, 0.6)
    start = open_image(client.get(f"/images/{request['init_image']}").content)
    assert start.getpixel((5, 5)) == draw_image().getpixel((5, 5))
    url = url_in(answer.choices[0].message.content)
    again = ask(openai, said([text, image_part(url)]), extra_body={"strength": 0.3})
    request = job_of(client, again)["request"]
    assert (request["init_image"], request["strength"]) == (url.rpartition("/")[2], 0.3)


def test_parameters_of_images(openai: OpenAI, client: httpx2.Client) -> None:
    fields = {"size": "1024x1024", "steps": 9, "output_format": "webp", "negative_prompt": "bad"}
    answer = ask(
        openai,
        said(PROMPT),
        n=3,
        metadata={"chat": "1"},
        response_format={"type": "text"},
        tools=[{"type": "function", "function": {"name": "search", "parameters": {}}}],
        extra_body={**fields, "moderation": {"model": "x"}, "min_p": 0.1, "num_images": 7},
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    seeds = [choice.message.content.partition("]")[0] for choice in answer.choices]
    job = job_of(client, answer)
    assert seeds == [f"![seed {image['seed']}" for image in job["images"]]
    request = job["request"]
    assert (request["steps"], request["negative_prompt"], request["metadata"]) == (9, "bad", "full")
    assert answer.choices[0].message.images[0]["image_url"]["url"].startswith("data:image/webp;")
    assert "ignored: min_p, num_images" in answer.warnings
    assert any("size 1024x1024" in warning for warning in answer.warnings)


def test_text_only(openai: OpenAI) -> None:
    answer = ask(openai, said(PROMPT), modalities=["text"])
    message = answer.choices[0].message
    assert url_in(message.content)
    assert not hasattr(message, "images")


def test_stream(openai: OpenAI, client: httpx2.Client) -> None:
    stream = ask(openai, said(PROMPT), n=2, stream=True, stream_options={"include_usage": True})
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    job = client.get(f"/jobs/{stream.response.headers['x-job-id']}").json()
    begin, first, second, *ends, usage = list(stream)
    assert [choice.delta.role for choice in begin.choices] == ["assistant", "assistant"]
    for index, chunk in enumerate((first, second)):
        assert chunk.choices[0].index == index
        file = client.get(url_in(chunk.choices[0].delta.content)).content
        data = chunk.choices[0].delta.images[0]["image_url"]["url"].partition(",")[2]
        assert base64.b64decode(data) == file
    assert [end.choices[0].finish_reason for end in ends] == ["stop", "stop"]
    assert (usage.choices, usage.usage.completion_tokens) == ([], 128)
    assert {chunk.id for chunk in (begin, first, second, *ends, usage)} == {f"chatcmpl-{job['id']}"}


def test_stream_ends_with_its_mark(client: httpx2.Client) -> None:
    body = {"messages": [said(PROMPT)], "stream": True, "modalities": ["text"]}
    lines = client.post(CHAT, json=body).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    assert "usage" not in json.loads(lines[-2].removeprefix("data: "))


def test_later_error_is_the_last_event(openai: OpenAI) -> None:
    stream = ask(openai, said("a nan b"), stream=True)
    with pytest.raises(APIError) as failed:
        list(stream)
    body: Any = failed.value.body
    assert (failed.value.code, body["job_id"]) == (
        "non_finite",
        stream.response.headers["x-job-id"],
    )


PART = {"type": "text", "text": PROMPT}
INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({}, "messages", "expected a list"),
    ({"messages": []}, "messages", "expected a list"),
    ({"messages": PROMPT}, "messages", "expected a list"),
    ({"messages": ["x"]}, "messages.0.role", "expected one of assistant, developer"),
    ({"messages": [said(PROMPT), {"content": "x"}]}, "messages.1.role", "expected one of"),
    ({"messages": [said(PROMPT, "robot")]}, "messages.0.role", "got 'robot'"),
    ({"messages": [said(PROMPT, "system")]}, "messages", "no message of the user"),
    ({"messages": [said("x", "assistant")] * 3}, "messages", "no message of the user"),
    ({"messages": [said("")]}, "messages.0.content", "has no text"),
    ({"messages": [said(PROMPT), said(" \n")]}, "messages.1.content", "has no text"),
    ({"messages": [said([])]}, "messages.0.content", "has no text"),
    ({"messages": [said(None)]}, "messages.0.content", "has no text"),
    ({"messages": [said([image_part(DATA_URL)])]}, "messages.0.content", "has no text"),
    ({"messages": [said(7)]}, "messages.0.content", "expected a text or a list"),
    ({"messages": [said([PART] * 101)]}, "messages.0.content", "at most 100"),
    ({"messages": [said("x" * 10_001)]}, "messages.0.content", "10000"),
    (
        {"messages": [said([PART, image_part(DATA_URL), image_part(DATA_URL)])]},
        "messages.0.content",
        "2 images; send one",
    ),
    (
        {"messages": [said([PART, image_part({"url": "https://example.org/a.png"})])]},
        "messages.0.content.1",
        "not fetched",
    ),
    (
        {"messages": [said([PART, image_part({"url": f"data:;base64,{chr(65) * 400}"})])]},
        "messages.0.content.1",
        "cannot be read",
    ),
    ({"messages": [said([PART, image_part({})])]}, "messages.0.content.1.image_url", "expected an"),
    (
        {"messages": [said([{"type": "input_audio", "input_audio": {}}, PART])]},
        "messages.0.content.0",
        "'input_audio' cannot be read",
    ),
    ({"messages": [said([{"type": "text"}])]}, "messages.0.content.0", "cannot be read"),
    ({"messages": [said(PROMPT)], "n": 99}, "n", "8"),
    ({"messages": [said(PROMPT)], "n": 0}, "n", "1"),
    ({"messages": [said(PROMPT)], "size": "17x17"}, "size", "17x17"),
    ({"messages": [said(PROMPT)], "stream": "yes"}, "stream", "boolean"),
    ({"messages": [said(PROMPT)], "stream_options": 7}, "stream_options", "object"),
    ({"messages": [said(PROMPT)], "modalities": "text"}, "modalities", "list"),
    ({"messages": [said(PROMPT)], "model": 7}, "model", "text"),
]


def test_invalid_bodies(client: httpx2.Client) -> None:
    before = jobs(client)
    for body, param, message in INVALID:
        error = read_openai_error(client.post(CHAT, json=body), 400)
        assert (error["param"], message in error["message"]) == (param, True), (body, error)
    assert jobs(client) == before


def test_errors_raise_the_exceptions_of_the_package(openai: OpenAI) -> None:
    with pytest.raises(NotFoundError) as unknown:
        openai.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(BadRequestError):
        ask(openai, said(""), stream=True)


def test_model_may_be_left_out(client: httpx2.Client) -> None:
    answer = client.post(CHAT, json={"messages": [said(PROMPT)], "model": None}).json()
    assert answer["model"] == "kirazuri-tiny"
    assert client.get(f"/jobs/{answer['job_id']}").json()["status"] == "succeeded"


def test_other_bodies_are_refused(client: httpx2.Client) -> None:
    read_openai_error(client.post(CHAT, content=encode_file(draw_image())), 415)
    read_openai_error(client.post(CHAT, json=["x"]), 400)

"""Bodies as client generators see them: what is sent is required, what may be left out is not.

Every operation is called for real, and its answers are compared with the document. A new operation
that has a body needs an entry in `bodies`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from api.main import create_app
from tests.support.api_calls import PROMPT
from tests.support.images import draw_image, encode_file, to_base64
from tests.support.openai_clients import fake_worker
from worker.settings import Settings

LEFT_OUT = {
    "ChatMessage": {"function_call", "images", "tool_calls"},
    "ImageData": {"b64_json", "url"},
    "Images": {"quality"},
    "NotReady": {"rule"},
    "Problem": {"rule"},
}
"""Fields that an answer may lack, by schema. All others are always sent, also as null."""

Call = dict[str, Any]
"""Arguments of a request."""


SAID = {"role": "user", "content": PROMPT}
OLD_TOOL = {"name": "keep", "parameters": {}}
TOOL = {"type": "function", "function": {"name": "keep", "parameters": {}}}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_wait_seconds": 60, "openai_models": "gpt-image-*"})


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    settings = Settings(_env_file=None, card="kirazuri-tiny", webhook_secret="whsec_" + "c2Vj" * 12)
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def reachable(part: object, document: dict[str, Any]) -> set[str]:
    """The names of all component schemas that `part` refers to, directly or not."""
    found: set[str] = set()
    waiting = [json.dumps(part)]
    while waiting:
        for name in re.findall(r'"#/components/schemas/([^"]+)"', waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(json.dumps(document["components"]["schemas"][name]))
    return found


def sent_and_received(document: dict[str, Any]) -> tuple[set[str], set[str]]:
    webhooks = [hook["post"]["requestBody"] for hook in document["webhooks"].values()]
    answers = [operation["responses"] for _, _, operation in operations(document)]
    bodies = [operation.get("requestBody") for _, _, operation in operations(document)]
    return reachable(webhooks + answers, document), reachable(bodies, document)


# -- rules of the document -----------------------------------------------------------------------


def test_every_field_that_is_always_sent_is_required(document: dict[str, Any]) -> None:
    sent, received = sent_and_received(document)
    assert not sent & received, "a schema cannot be right for both"
    schemas = document["components"]["schemas"]
    optional = {
        name: set(schemas[name].get("properties", ())) - set(schemas[name].get("required", ()))
        for name in sent
    }
    assert {name: fields for name, fields in optional.items() if fields} == LEFT_OUT


def test_a_field_that_may_be_missing_is_never_null(document: dict[str, Any]) -> None:
    for name, fields in LEFT_OUT.items():
        for field in fields:
            schema = document["components"]["schemas"][name]["properties"][field]
            assert '"null"' not in json.dumps(schema), field


def test_no_field_of_a_body_has_a_default(document: dict[str, Any]) -> None:
    """openapi-typescript requires a field with a default, also in requests. Words tell it."""
    schemas = document["components"]["schemas"]
    bodies = [
        content["schema"]
        for _, _, operation in operations(document)
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]
    with_default = [
        f"{schema.get('title')}.{field}"
        for schema in [*schemas.values(), *bodies]
        for field, details in schema.get("properties", {}).items()
        if "default" in details
    ]
    assert with_default == []
    quality = schemas["GenerationRequest"]["properties"]["image_quality"]
    assert quality["description"].endswith("Default: `90`.")


def test_unions_of_objects_have_a_discriminator(document: dict[str, Any]) -> None:
    unions = re.findall(
        r'"(anyOf|oneOf)": (\[(?:\{"\$ref": "[^"]+"\}(?:, )?){2,}\])(, "discriminator")?',
        json.dumps(document),
    )
    assert unions, "POST /generate has one"
    assert [members for _, members, discriminator in unions if not discriminator] == []


def test_json_comes_before_a_stream(document: dict[str, Any]) -> None:
    """Generators take the type of the first body."""
    both = 0
    for _, path, operation in operations(document):
        for answer in operation["responses"].values():
            kinds = [*answer.get("content", ())]
            if len(kinds) > 1 and "text/event-stream" in kinds:
                both += 1
                assert kinds == ["application/json", "text/event-stream"], path
                assert answer["content"]["text/event-stream"]["schema"] == {"type": "string"}
    assert both >= 2


def test_names_can_be_used_in_programs(document: dict[str, Any]) -> None:
    """`JobView-Input` would appear if a model had one schema for requests and one for answers."""
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len({name.lower() for name in names}) == len(names)
    assert [name for name in names if not re.fullmatch("[a-z][A-Za-z0-9]*", name)] == []
    schemas = document["components"]["schemas"]
    assert [name for name in schemas if not re.fullmatch("[A-Z][A-Za-z0-9]*", name)] == []


def test_no_mark_of_the_service_is_left(document: dict[str, Any]) -> None:
    assert '"x-' not in json.dumps(document)


# -- real answers --------------------------------------------------------------------------------


def bodies() -> dict[str, list[Call]]:
    """Calls of the operations that have a body, by operation id."""
    image = encode_file(draw_image((128, 128)))
    form = {"files": {"image": ("a.png", image, "image/png")}}
    wait = {"prefer": "wait=60"}
    wrong = {"prompt": PROMPT, "steps": 0, "colour": "red"}
    return {
        "generate": [
            {"json": {"prompt": PROMPT, "steps": 2}},
            {"json": {"prompt": PROMPT, "steps": 2, "previews": True}, "headers": wait},
            {"json": {"prompt": PROMPT, "hires": {"scale": 1.5}}, "params": {"dry_run": True}},
            {"json": {"prompt": "nan, 1girl"}, "headers": wait},
            {"json": wrong},
            {"content": b"{", "headers": {"content-type": "application/json"}},
            {"content": b"{}", "headers": {"content-type": "text/html"}},
        ],
        "verifyImage": [form, {"content": image}, {"content": b""}],
        "openaiGenerateImages": [
            {"json": {"prompt": PROMPT}},
            {"json": {"prompt": PROMPT, "response_format": "url", "steps": 3}},
            {"json": {"prompt": PROMPT, "stream": True}},
            {"json": wrong},
        ],
        "openaiEditImage": [
            {**form, "data": {"prompt": PROMPT}},
            {"files": {"prompt": (None, PROMPT)}},
        ],
        "openaiChat": [
            {"json": {"messages": [SAID]}},
            {"json": {"messages": [SAID], "modalities": ["text"], "n": 2}},
            {"json": {"messages": [SAID], "stream": True}},
            {"json": {"messages": [SAID], "response_format": {"type": "json_object"}}},
            {"json": {"messages": [SAID], "tools": [TOOL], "tool_choice": "required"}},
            {"json": {"messages": [SAID], "functions": [OLD_TOOL], "function_call": OLD_TOOL}},
            {"json": {"messages": []}},
        ],
        "openaiRespond": [
            {"json": {"input": PROMPT}},
            {"json": {"input": [SAID], "stream": True}},
            {"json": {"input": PROMPT, "text": {"format": {"type": "json_object"}}}},
            {"json": {"input": PROMPT, "tools": [TOOL], "tool_choice": "required"}},
            {"json": {}},
        ],
        "a1111EnlargeImage": [
            {"json": {"image": to_base64(image), "upscaler_1": "Lanczos"}},
            {"json": {"image": to_base64(image), "upscaler_1": "ESRGAN_4x"}},
        ],
        "a1111TextToImage": [{"json": {"prompt": PROMPT, "steps": 2}}, {"json": {"steps": 0}}],
        "a1111ImageToImage": [{"json": {"prompt": PROMPT, "init_images": [to_base64(image)]}}],
        "a1111PngInfo": [{"json": {"image": to_base64(image)}}, {"json": {"image": ""}}],
        "a1111SetOptions": [{"json": {}}, {"json": {"sd_model_checkpoint": "sdxl"}}],
    }


def strict_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """The components, with undeclared fields forbidden."""
    components: dict[str, Any] = json.loads(json.dumps(document["components"]))
    for schema in components["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return components


def check(answer: httpx2.Response, operation: dict[str, Any], components: dict[str, Any]) -> None:
    """Compare an answer with the description of its operation."""
    name = operation["operationId"]
    assert str(answer.status_code) in operation["responses"], (name, answer.text)
    content = operation["responses"][str(answer.status_code)].get("content", {})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if not content:
        assert not answer.content, (name, answer.status_code)
        return
    assert kind in content, (name, kind)
    if kind.endswith("json"):
        schema = {**content[kind]["schema"], "components": components}
        problems = [
            error.message for error in Draft202012Validator(schema).iter_errors(answer.json())
        ]
        assert problems == [], name


@pytest.fixture
def finished(client: httpx2.Client, settings: Settings) -> Iterator[dict[str, Any]]:
    """A job that has succeeded, while a worker runs."""
    with fake_worker(settings, step_seconds=0.001):
        answer = client.post(
            "/generate", json={"prompt": PROMPT, "steps": 2}, headers={"prefer": "wait=60"}
        )
        assert answer.json()["status"] == "succeeded", answer.text
        yield answer.json()


def test_real_answers_have_the_fields_of_the_document(
    client: httpx2.Client, finished: dict[str, Any]
) -> None:
    """The document of the running service, so that its examples fit its settings."""
    document = client.get("/openapi.json").json()
    components = strict_schemas(document)
    values = {
        "job_id": finished["id"],
        "name": finished["images"][0]["url"].rpartition("/")[2],
        "code": "internal",
        "model": "kirazuri-tiny",
    }
    prepared, seen = bodies(), set()
    for method, path, operation in operations(document):
        name = operation["operationId"]
        assert ("requestBody" in operation) is (name in prepared), f"{name}: see `bodies`"
        for call in prepared.get(name, [{}]):
            answer = client.request(method, path.format(**values), **call)
            check(answer, operation, components)
            seen.add((name, answer.status_code))
        if "{" in path:
            check(
                client.request(method, path.format(**dict.fromkeys(values, "no"))),
                operation,
                components,
            )
    assert {("generate", 200), ("generate", 202), ("generate", 422), ("cancelJob", 409)} <= seen
    assert {("openaiEditImage", 200), ("openaiEditImage", 400), ("replayJob", 202)} <= seen


def test_fields_that_are_left_out(client: httpx2.Client, finished: dict[str, Any]) -> None:
    body = {"prompt": PROMPT, "steps": 3}
    images = client.post("/v1/images/generations", json=body).json()
    assert "quality" not in images
    assert set(images["data"][0]) == {"b64_json", "seed"}
    body = {"prompt": PROMPT, "quality": "low", "response_format": "url"}
    images = client.post("/v1/images/generations", json=body).json()
    assert images["quality"] == "low"
    assert set(images["data"][0]) == {"url", "seed"}

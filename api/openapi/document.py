"""Builds the OpenAPI 3.1 document for people and client generators.

Adds to FastAPI's document: the media type of problems, security schemes and examples. Bodies are
fitted to client generators.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.http.problem import PROBLEM_MEDIA_TYPE
from api.middleware.authentication import is_public_path
from api.openai.conversation.chat_docs import chat_body
from api.openai.conversation.response_docs import response_body
from api.openai.images.request_docs import edit_body, images_body
from api.openapi.bodies import drop_null, fit_for_generators
from api.openapi.examples import examples
from model.card import Card
from model.request import GenerationRequest

# In the order of /docs, which shows a group for each, also for one without operations.
_TAGS = [
    {"name": "generation", "description": "Submit generation requests."},
    {"name": "jobs", "description": "Read, follow and cancel jobs."},
    {"name": "images", "description": "Read finished images and verify their origin."},
    {"name": "service", "description": "What the service offers and what its problems mean."},
    {"name": "health", "description": "For probes and dashboards."},
    {"name": "openai", "description": "OpenAI's API for making images, for its clients."},
    {"name": "a1111", "description": "The API of the A1111 web UI, for its clients."},
]
_PROBLEMS = {"Problem", "NotReady"}
_SECURITY_SCHEMES: dict[str, dict[str, Any]] = {
    "bearerKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, if the operator has made any.",
    },
    "basicKey": {
        "type": "http",
        "scheme": "basic",
        "description": "The same key as user name or password, for clients without bearer support.",
    },
    "signedLink": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "Part of the URLs that `POST /jobs/{job_id}/links` signs.",
    },
}
_SIGNED_PATHS = {"/jobs/{job_id}/events", "/images/{name}"}
_OPENAI_BODIES: Mapping[str, Callable[[type[GenerationRequest]], dict[str, Any]]] = {
    "openaiGenerateImages": images_body,
    "openaiEditImage": edit_body,
    "openaiChat": chat_body,
    "openaiRespond": response_body,
}
"""The content of bodies by operation: OpenAI's parameters with the fields of `POST /generate`."""

_EVENTS_EXAMPLE = (
    "retry: 2000\n\nevent: queued\ndata: {}\nid: 1795392000000-0\n\n"
    'event: progress\ndata: {"step": 7, "steps": 20, "eta_seconds": 0.6}\nid: 1795392001000-0\n\n'
)


def install(app: FastAPI, card: Card, request_model: type[GenerationRequest]) -> None:
    """Make `app` serve this document, with examples that fit `card`.

    It and all of its schemas are made when somebody asks for it, not at the start.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, card, request_model)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def serve_as_text(app: FastAPI) -> None:
    """Replace FastAPI's route, which writes the document as JSON again for every request.

    That takes several milliseconds, and needs no key. Call it before other routes are added.
    """
    texts: list[bytes] = []

    async def openapi(_: Request) -> Response:
        if not texts:
            text = json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":"))
            texts.append(text.encode())
        return Response(texts[0], media_type="application/json")

    routes = app.router.routes
    routes[:] = [one for one in routes if getattr(one, "path", None) != app.openapi_url]
    app.add_route(f"{app.openapi_url}", openapi, include_in_schema=False)


def describe(app: FastAPI, card: Card, request_model: type[GenerationRequest]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `app`."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=_TAGS,
        webhooks=app.webhooks.routes,
    )
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if body_of := _OPENAI_BODIES.get(operation["operationId"]):
                # Without the defaults that are null, as FastAPI describes all others.
                content = jsonable_encoder(body_of(request_model), exclude_none=True)
                operation["requestBody"] = {"required": True, "content": content}
            # FastAPI adds this to dialects too, which answer 400 to invalid fields.
            if _ref(operation["responses"].get("422", {})) == "HTTPValidationError":
                del operation["responses"]["422"]
            _add_security(path, operation)
            _add_cross_origin(method, operation)
            for parameter in operation.get("parameters", ()):
                # Optional headers and query parameters are left out, and never null.
                drop_null(parameter["schema"])
            for answer in operation["responses"].values():
                _fix_media_types(answer)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    document["components"]["securitySchemes"] = _SECURITY_SCHEMES
    _add_examples(document["components"]["schemas"], card)
    fit_for_generators(document)
    return document


def _add_examples(schemas: dict[str, Any], card: Card) -> None:
    """Give every field an example, unless it has one."""
    values: dict[str, dict[str, Any]] = {}
    for example in examples(card):
        _collect(example, values)
    # The request model of the service extends that of the card.
    values["GenerationRequest"]["webhook"] = values["WebhookRequest"]
    for name, fields in values.items():
        for field, value in fields.items():
            schemas[name]["properties"][field].setdefault("examples", [value])


def _collect(value: Any, values: dict[str, dict[str, Any]]) -> None:
    """Collect the field values of all models in `value`, by model name; the first model counts."""
    if isinstance(value, BaseModel):
        values.setdefault(type(value).__name__, value.model_dump(mode="json"))
        value = [*dict(value).values()]
    if isinstance(value, list | tuple):
        for item in value:
            _collect(item, values)


def _add_security(path: str, operation: dict[str, Any]) -> None:
    """Add the security schemes of an operation, and 401 with the body of its other errors."""
    if is_public_path(path):
        operation["security"] = []
        return
    names = ["bearerKey", "basicKey", *(["signedLink"] if path in _SIGNED_PATHS else [])]
    operation["security"] = [{name: []} for name in names]
    answers = operation["responses"]
    answers["401"] = deepcopy(answers["500"]) | {
        "description": "An API key is missing or unknown.",
        "headers": {
            "WWW-Authenticate": {
                "description": "How to send a key.",
                "schema": {"type": "string"},
                "example": 'Bearer realm="kirazuri"',
            }
        },
    }
    # Every operation counts against the requests of a key at once.
    answers.setdefault("429", deepcopy(answers["500"]) | {"description": "Too Many Requests"})
    if "requestBody" in operation:
        unavailable = {"description": "Service Unavailable"}
        answers.setdefault("503", deepcopy(answers["500"]) | unavailable)
    operation["responses"] = dict(sorted(answers.items()))


def _add_cross_origin(method: str, operation: dict[str, Any]) -> None:
    """Add 403 to what may change something: pages of other origins are refused."""
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    if method != "get" or "cancel_on_disconnect" in names:
        answers = operation["responses"]
        answers.setdefault("403", deepcopy(answers["500"]) | {"description": "Forbidden"})
        operation["responses"] = dict(sorted(answers.items()))


def _fix_media_types(answer: dict[str, Any]) -> None:
    """Set the media type of problems; drop the item schema of streams, which is OpenAPI 3.2."""
    content = answer.get("content", {})
    if _ref(answer) in _PROBLEMS:
        # FastAPI takes the media type of the successful response.
        (described,) = content.values()
        answer["content"] = {PROBLEM_MEDIA_TYPE: described}
    if "text/event-stream" in content:
        example = content["text/event-stream"].get("example", _EVENTS_EXAMPLE)
        content["text/event-stream"] = {"schema": {}, "example": example}


def _ref(answer: dict[str, Any]) -> str:
    """The name of the schema of a response; "" if there is none or several."""
    schemas = [described.get("schema", {}) for described in answer.get("content", {}).values()]
    names: list[str] = [schema.get("$ref", "").rpartition("/")[2] for schema in schemas]
    return names[0] if len(names) == 1 else ""

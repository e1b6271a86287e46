"""The OpenAPI document as generators of clients need it.

Problems under their own media type, examples, and nothing that OpenAPI 3.1 does not know.
"""

from copy import deepcopy
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.http.problem import PROBLEM_MEDIA_TYPE
from api.middleware import authentication as gate
from api.webhooks import schemas as webhook_schemas
from model.card import Card, TagGroup
from model.sampler_catalog import SAMPLER_CATALOG
from model.sizes import enlarged_size
from worker.images.metadata import TRAINED

_TAGS = [
    {"name": "generation", "description": "From a request to a job."},
    {"name": "jobs", "description": "What happens to a job."},
    {"name": "webhooks", "description": "What is posted to those who asked for it."},
    {"name": "images", "description": "Finished pictures."},
    {"name": "a1111", "description": "The API of the A1111 web UI, for its clients."},
    {"name": "openai", "description": "The images of OpenAI's API, for its clients."},
    {"name": "service", "description": "What the service can do, and what its problems mean."},
    {"name": "health", "description": "For probes and dashboards."},
]
_PROBLEMS = {"Problem", "NotReady"}
_KEYS: dict[str, dict[str, Any]] = {
    "bearerKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, where the operator has made some.",
    },
    "basicKey": {
        "type": "http",
        "scheme": "basic",
        "description": "The same key as user or as password, for clients that know nothing else.",
    },
    "signedLink": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "Part of a URL of `POST /jobs/{job_id}/links`.",
    },
}
_READ_BY_LINK = {"/jobs/{job_id}/events", "/images/{name}"}
_EVENTS_EXAMPLE = (
    "retry: 2000\n\nevent: queued\ndata: {}\nid: 1795392000000-0\n\n"
    'event: progress\ndata: {"step": 7, "steps": 20, "eta_seconds": 0.6}\nid: 1795392001000-0\n\n'
)


def install(app: FastAPI, card: Card) -> None:
    """Make `app` describe itself, with examples that fit `card`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, card)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def describe(app: FastAPI, card: Card) -> dict[str, Any]:
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
        for operation in methods.values():
            # FastAPI's own, where a dialect says 400 to what is wrong.
            if _ref(operation["responses"].get("422", {})) == "HTTPValidationError":
                del operation["responses"]["422"]
            _describe_keys(path, operation)
            for parameter in operation.get("parameters", ()):
                _describe_parameter(parameter)
            for answer in operation["responses"].values():
                _describe_answer(answer)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    document["components"]["securitySchemes"] = _KEYS
    for name, example in examples(card).items():
        schema = document["components"]["schemas"][name]
        for field, value in example.items():
            schema["properties"][field].setdefault("examples", [value])
    return document


def _describe_parameter(parameter: dict[str, Any]) -> None:
    """A header or query that may be left out is never null, as bodies' fields may be."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]


def _describe_keys(path: str, operation: dict[str, Any]) -> None:
    """Which keys open the operation, and its refusal in the shape of its other errors."""
    if gate.is_public(path):
        operation["security"] = []
        return
    names = ["bearerKey", "basicKey", *(["signedLink"] if path in _READ_BY_LINK else [])]
    operation["security"] = [{name: []} for name in names]
    answers = operation["responses"]
    answers["401"] = deepcopy(answers["500"]) | {
        "description": "An API key is needed, or this one is not known.",
        "headers": {
            "WWW-Authenticate": {
                "description": "How to send one.",
                "schema": {"type": "string"},
                "example": 'Bearer realm="kirazuri"',
            }
        },
    }
    operation["responses"] = dict(sorted(answers.items()))


def _describe_answer(answer: dict[str, Any]) -> None:
    """Problems have their own type; an item schema for streams only comes with OpenAPI 3.2."""
    content = answer.get("content", {})
    if _ref(answer) in _PROBLEMS:
        # FastAPI writes the media type of the route's success.
        (described,) = content.values()
        answer["content"] = {PROBLEM_MEDIA_TYPE: described}
    if "text/event-stream" in content:
        example = content["text/event-stream"].get("example", _EVENTS_EXAMPLE)
        content["text/event-stream"] = {"schema": {}, "example": example}


def _ref(answer: dict[str, Any]) -> str:
    """The name of the one schema an answer's body has; "" for none or several."""
    schemas = [described.get("schema", {}) for described in answer.get("content", {}).values()]
    names: list[str] = [schema.get("$ref", "").rpartition("/")[2] for schema in schemas]
    return names[0] if len(names) == 1 else ""


def examples(card: Card) -> dict[str, dict[str, Any]]:
    """One consistent example of every shape that a client sends or reads, field by field."""
    defaults, preset = card.defaults, card.resolutions[0]
    sampling = {
        "prompt": card.prompting.example,
        "negative_prompt": defaults.negative_prompt,
        "steps": card.samplers[defaults.sampler].default_steps,
        "cfg_scale": defaults.cfg_scale,
        "sampler": defaults.sampler,
        "scheduler": defaults.scheduler,
        "sampler_options": {
            name: option.default
            for name, option in SAMPLER_CATALOG[defaults.sampler].options.items()
        },
        "seed": 42,
        "num_images": 1,
        "init_image": _IMAGE,
        "strength": defaults.strength,
        "mask": _IMAGE,
        "loras": [],
        "image_format": "png",
        "image_quality": 90,
        "metadata": "full",
        "deterministic": False,
        "previews": False,
    }
    lora = {"name": "watercolor", "weight": 0.8, "sha256": _SHA256}
    hires: dict[str, Any] = {
        "scale": 1.5,
        "steps": 10,
        "strength": defaults.hires_strength,
        "upscaler": "lanczos",
    }
    width, height = enlarged_size(preset.width, preset.height, hires["scale"], card.limits)
    resolved: dict[str, Any] = {
        **sampling,
        "loras": [lora],
        "width": preset.width,
        "height": preset.height,
        "hires": {**hires, "width": width, "height": height},
    }
    job_url = f"http://localhost:8000/jobs/{_JOB_ID}"
    image = {
        "url": f"http://localhost:8000/images/{_IMAGE}",
        "seed": 42,
        "width": preset.width,
        "height": preset.height,
        "format": "png",
        "bytes": 1_482_311,
        "sha256": _SHA256,
        "unsigned_sha256": None,
    }
    recipe = {
        "card": card.name,
        "checkpoint": _SHA256[::-1],
        "text_encoder": _SHA256[1:] + "0",
        "vae": _SHA256[2:] + "00",
        "device_name": "NVIDIA H100 80GB HBM3",
        "precision": "bfloat16",
        "threads": None,
        "torch": "2.13.0+cu130",
        "service": "kirazuri-server 0.1.0",
    }
    warning = {"code": "short_prompt", "detail": "3 tags; with fewer than 8 details bleed"}
    links = {"self": job_url, "events": f"{job_url}/events", "cancel": None}
    progress = {"step": sampling["steps"], "steps": sampling["steps"], "fraction": 1.0}
    timings = {"queued": 0.1, "encode": 0.2, "denoise": 2.4, "decode": 0.3, "store": 0.1}
    wrong = {"pointer": "/steps", "detail": "Input should be less than or equal to 100; got 500"}
    problem = {
        "type": "/problems/validation_failed",
        "title": "Invalid request",
        "status": 422,
        "detail": "1 field is wrong",
        "instance": "6f1c0b7e2a9d4c55",
        "code": "validation_failed",
        "errors": [{**wrong, "limit": 100}],
    }
    tags = {
        **{group: [] for group in get_args(TagGroup)},
        "quality": list(card.prompting.quality[:2]),
        "subject": list(card.prompting.subject[:1]),
        "general": ["long_hair", "smile"],
    }
    tokens = {"qwen": 38, "t5": 41, "limit": card.text.token_limit, "is_cut": False}
    counts = {"prompt": tokens, "negative_prompt": {**tokens, "qwen": 0, "t5": 1}}
    job: dict[str, Any] = {
        "id": _JOB_ID,
        "status": "succeeded",
        "request": resolved,
        "progress": progress,
        "queue_position": None,
        "eta_seconds": None,
        "images": [image],
        "warnings": [warning],
        "error": None,
        "attempts": 1,
        "timings": timings,
        "worker": "worker-1",
        "recipe": recipe,
        "replay_of": None,
        "matches": None,
        "created_at": "2026-11-23T12:00:00Z",
        "started_at": "2026-11-23T12:00:00.1Z",
        "cancel_at": None,
        "finished_at": "2026-11-23T12:00:03.1Z",
        "expires_at": "2026-11-24T12:00:03.1Z",
        "links": links,
    }
    hooks = webhook_schemas.examples(job)
    job_view = {**job, "webhook": hooks["JobWebhook"]}
    return {
        "GenerationRequest": {
            **sampling,
            "resolution": preset.name,
            "tags": tags,
            "hires": hires,
            "webhook": hooks["WebhookRequest"],
        },
        "Hires": hires,
        "ResolvedRequest": resolved,
        "ResolvedHires": resolved["hires"],
        "ResolvedLora": lora,
        "LoraDescription": {
            "name": lora["name"],
            "sha256": lora["sha256"],
            "bytes": 92_274_688,
            "method": "lora",
            "rank": 32,
            "parts": ["transformer"],
            "base": "anima-preview",
            "architecture": "anima-preview/lora",
            "trigger_words": ["watercolor"],
            "warning": f"watercolor was trained on anima-preview, not on {card.title}.",
        },
        "PlannedRequest": {**resolved, "seed": None},
        "PromptTokens": tokens,
        "TokenCounts": counts,
        "Plan": {
            "request": {**resolved, "seed": None},
            "tokens": counts,
            "warnings": [warning],
            "cost": 62.915,
            "queue_position": 2,
            "waiting_seconds": 18.2,
            "own_seconds": 9.1,
            "eta_seconds": 27.3,
        },
        "SamplerOption": {
            "name": "eta",
            "type": "number",
            "default": 1.0,
            "minimum": 0.0,
            "maximum": 1.0,
            "choices": [],
            "description": "Share of stochasticity: 0 is the equation without noise.",
        },
        "StoredImage": image,
        **_verification(image, recipe),
        "Recipe": recipe,
        "JobWarning": warning,
        "Links": links,
        "JobLinks": {
            "events": f"{job_url}/events?token={_TOKEN}",
            "images": [f"{image['url']}?token={_TOKEN}"],
            "expires_at": "2026-11-23T13:00:00Z",
        },
        "Progress": progress,
        "Timings": timings,
        "FieldError": {**wrong, "limit": 100},
        "Problem": problem,
        "JobView": job_view,
        "JobList": {"items": [job_view], "next": _JOB_ID},
        **hooks,
    }


def _verification(image: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """An image of the caller's own."""
    maker = {"job_id": _JOB_ID, "image": image}
    claim = {
        "kind": "kirazuri",
        "request": {"prompt": "1girl, long_hair, smile", "seed": image["seed"]},
        "notes": [],
        "model": recipe["card"],
        "checkpoint": recipe["checkpoint"],
    }
    credentials = {
        "state": "valid",
        "signer": "Picture signer, Studio Kirazuri",
        "generator": "kirazuri-server",
        "source_types": [TRAINED],
        "problems": [],
    }
    same = ("sha256", "bytes", "format", "width", "height")
    return {
        "Maker": maker,
        "RecipeClaim": claim,
        "CredentialClaim": credentials,
        "Verification": {
            "verdict": "ours",
            "summary": [f"These are the bytes of an image of your job {_JOB_ID}."],
            **{name: image[name] for name in same},
            "made_by": maker,
            "mark": TRAINED,
            "recipe": claim,
            "credentials": credentials,
        },
    }


_JOB_ID = "01JD6Z1Q8M4T0V7C2N5K9R3XWB"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_IMAGE = f"{_SHA256[:40]}.png"
_TOKEN = "1795438800.655857b9f6c28a89.pJYqUu2m6q8h6xYcW0m6l7Yp1rZ2gqk1o2vQe3x4h5A"  # noqa: S105 - signs nothing

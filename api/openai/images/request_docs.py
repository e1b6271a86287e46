"""OpenAPI descriptions of the request bodies and of the successful response."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, Field, create_model

from api.openai.images.parameters import HIDDEN_FIELDS, Parameters
from api.openai.images.responses import Images
from model.request import GenerationRequest, field_description

_EVENTS_EXAMPLE: Final = (
    'event: image_generation.partial_image\ndata: {"type": "image_generation.partial_image", …}\n\n'
    'event: image_generation.completed\ndata: {"type": "image_generation.completed", …}\n\n'
)

_MASK: Final = "An image of the same size. Its transparent areas are repainted."
_FILES: Final[dict[str, Any]] = {
    "image": {
        "type": "string",
        "format": "binary",
        "description": "The initial image: PNG, JPEG, WebP or AVIF. Also accepted as `image[]`.",
    },
    "mask": {"type": "string", "format": "binary", "description": _MASK},
}
_REFERENCE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "image_url": {
            "type": "string",
            "description": "A data URL, or the name or URL of an image made by this service.",
            "examples": ["data:image/png;base64,iVBORw0KGgo…"],
        }
    },
    "required": ["image_url"],
}
_REFERENCES: Final[dict[str, Any]] = {
    "images": {
        "type": "array",
        "items": _REFERENCE,
        "minItems": 1,
        "maxItems": 1,
        "description": "The initial image.",
    },
    "mask": {**_REFERENCE, "description": _MASK},
}

SUCCESS: Final[dict[str, Any]] = {
    "model": Images,
    "description": "The images; with `stream`, events.",
    "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS_EXAMPLE}},
}


def images_body(request_model: type[GenerationRequest]) -> dict[str, Any]:
    """The content of the body of `generations`, by media type."""
    schema = schema_of(documented_type("ImagesRequest", request_model))
    return {"application/json": {"schema": schema}}


def edit_body(request_model: type[GenerationRequest]) -> dict[str, Any]:
    """The content of the body of `edits`: a form, or JSON."""
    documented = documented_type("ImageEditRequest", request_model, "init_image", "mask")
    return {
        "multipart/form-data": {"schema": _with_images(documented, "image", _FILES)},
        "application/json": {"schema": _with_images(documented, "images", _REFERENCES)},
    }


def _with_images(
    documented: type[BaseModel], required: str, images: Mapping[str, Any]
) -> dict[str, Any]:
    schema = schema_of(documented)
    schema["properties"] |= images
    schema["required"] = [required, *schema["required"]]
    return schema


def documented_type(
    name: str, request_model: type[GenerationRequest], *excluded: str
) -> type[BaseModel]:
    """OpenAI's parameters together with the fields of `POST /generate`, for documentation only."""
    hidden = {*HIDDEN_FIELDS, *excluded, "prompt"}
    fields: dict[str, Any] = {
        field: (info.annotation, info)
        for field, info in request_model.model_fields.items()
        if field not in hidden
    }
    prompt: Any = (
        str,
        Field(
            max_length=10_000,
            description=field_description("prompt"),
            examples=["masterpiece, best quality, 1girl, blue hair, smile"],
        ),
    )
    return create_model(name, __base__=Parameters, __module__=__name__, prompt=prompt, **fields)


def schema_of(documented: type[BaseModel]) -> dict[str, Any]:
    """Its JSON schema; nested models refer to the schemas of the OpenAPI document."""
    schema = documented.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema

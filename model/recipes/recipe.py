"""Writes and reads the recipe of an image: its request, and the worker that made it.

The document has nothing that belongs to a job, so that the same image gives the same bytes.
"""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.resolved_request import ResolvedRequest

SCHEMA = 1
"""Version of the document, raised when an old reader would misunderstand a new document."""

MAX_DOCUMENT_CHARS = 1_000_000

JOB_ONLY_FIELDS = frozenset({"deterministic", "previews"})
"""Fields of a request that do not affect the image."""


class Recipe(BaseModel):
    """The weights, device and versions that a worker used. Empty means unknown.

    With `deterministic`, the same request with the same recipe gives the same bytes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    card: str = Field(default="", description="Name of the checkpoint's card.")
    checkpoint: str = Field(default="", description="SHA-256 of the transformer's file.")
    text_encoder: str = Field(default="", description="SHA-256 of the text encoder's file.")
    vae: str = Field(default="", description="SHA-256 of the VAE's file.")
    device_name: str = Field(default="", description="Model of the GPU or processor.")
    precision: str = Field(
        default="", description="Precision of the transformer: float32 or bfloat16."
    )
    threads: int | None = Field(
        default=None, description="Number of processor threads; null on a GPU."
    )
    path: str = Field(
        default="",
        description="Code that computed the transformer: eager or compiled, each also in float8. "
        "Empty for a worker, which has several.",
    )
    torch: str = Field(default="", description="Version of PyTorch.")
    service: str = Field(default="", description="Name and version of this service.")


def build_recipe(description: dict[str, Any], *, service: str, path: str = "") -> Recipe:
    """Build the recipe from an engine's description, without its other entries."""
    return Recipe.model_validate({**description, "service": service, "path": path})


def recipe_differences(one: Recipe, other: Recipe) -> list[str]:
    """Names of the fields in which two recipes differ."""
    return [name for name in Recipe.model_fields if getattr(one, name) != getattr(other, name)]


class RecipeDocument(BaseModel):
    """The JSON document in an image file: the request for this image, and the recipe.

    `request` has the fields of a resolved request. Documents of other releases may have fewer or
    more fields.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int = Field(alias="schema", ge=1)
    request: dict[str, Any]
    recipe: Recipe = Recipe()


def write_document(request: ResolvedRequest, recipe: Recipe, *, seed: int) -> str:
    """Write the document of one image as JSON; `seed` is that of the image."""
    single = request.model_copy(update={"seed": seed, "num_images": 1})
    document = {
        "schema": SCHEMA,
        "request": single.model_dump(mode="json", exclude=set(JOB_ONLY_FIELDS)),
        "recipe": recipe.model_dump(mode="json"),
    }
    return json.dumps(document, ensure_ascii=False)


def read_document(text: str) -> RecipeDocument:
    """Parse the document of an image file.

    Raises:
        ValueError: it is too long, not valid JSON or of a newer schema.
    """
    if len(text) > MAX_DOCUMENT_CHARS:
        raise ValueError(f"the recipe has {len(text)} characters; at most {MAX_DOCUMENT_CHARS}")
    try:
        document = RecipeDocument.model_validate_json(text)
    except ValidationError as exc:
        raise ValueError(f"the recipe cannot be read: {exc.errors()[0]['msg']}") from exc
    if document.schema_version > SCHEMA:
        raise ValueError(
            f"the recipe has schema {document.schema_version}; this release supports up to {SCHEMA}"
        )
    return document

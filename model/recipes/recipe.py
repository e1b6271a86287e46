"""What made a picture beside its request, and both together as a document for inside its file.

Nothing in the document belongs to a job alone: the same picture gives the same bytes. Knows
neither file formats nor the queue.
"""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.resolved_request import ResolvedRequest

SCHEMA = 1
"""Of the document; raised when an old reader would misunderstand a new one."""

MAX_DOCUMENT_CHARS = 1_000_000

JOB_ONLY_FIELDS = frozenset({"deterministic", "previews"})
"""Fields of a request that say how it is carried out and told, not what the picture shows."""


class Recipe(BaseModel):
    """What a worker brings to a request: weights, device, versions. Empty means unknown.

    With `deterministic`, the same request under the same recipe gives the same bytes.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    card: str = Field(default="", description="Name of the checkpoint's card.")
    checkpoint: str = Field(default="", description="SHA-256 of the transformer's file.")
    text_encoder: str = Field(default="", description="SHA-256 of the text encoder's file.")
    vae: str = Field(default="", description="SHA-256 of the VAE's file.")
    device_name: str = Field(default="", description="Model of the GPU, or of the processor.")
    precision: str = Field(default="", description="Of the transformer: float32 or bfloat16.")
    threads: int | None = Field(
        default=None, description="Threads of the processor; null where a GPU does the work."
    )
    torch: str = Field(default="", description="Version of PyTorch.")
    service: str = Field(default="", description="Name and version of this service.")


def build_recipe(description: dict[str, Any], *, service: str) -> Recipe:
    """The recipe of an engine that describes itself so; what else it tells is left out."""
    return Recipe.model_validate({**description, "service": service})


def recipe_differences(one: Recipe, other: Recipe) -> list[str]:
    """In which fields two recipes differ, by name, in their order."""
    return [name for name in Recipe.model_fields if getattr(one, name) != getattr(other, name)]


class RecipeDocument(BaseModel):
    """The inside of a file: a request for this very picture, and the recipe it was made under.

    `request` has the names of a resolved request; one of another release may lack some of them,
    or have more.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int = Field(alias="schema", ge=1)
    request: dict[str, Any]
    recipe: Recipe = Recipe()


def write_document(request: ResolvedRequest, recipe: Recipe, *, seed: int) -> str:
    """One picture's document as JSON; `seed` is the picture's own."""
    single = request.model_copy(update={"seed": seed, "num_images": 1})
    document = {
        "schema": SCHEMA,
        "request": single.model_dump(mode="json", exclude=set(JOB_ONLY_FIELDS)),
        "recipe": recipe.model_dump(mode="json"),
    }
    return json.dumps(document, ensure_ascii=False)


def read_document(text: str) -> RecipeDocument:
    """The document in a file.

    Raises:
        ValueError: too long, no JSON, or of a schema that this release does not know.
    """
    if len(text) > MAX_DOCUMENT_CHARS:
        raise ValueError(f"the recipe has {len(text)} characters; at most {MAX_DOCUMENT_CHARS}")
    try:
        document = RecipeDocument.model_validate_json(text)
    except ValidationError as exc:
        raise ValueError(f"the recipe is not readable: {exc.errors()[0]['msg']}") from exc
    if document.schema_version > SCHEMA:
        raise ValueError(
            f"the recipe has schema {document.schema_version}; this release knows up to {SCHEMA}"
        )
    return document

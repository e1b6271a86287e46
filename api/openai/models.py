"""Routes `GET /v1/models` and `GET /v1/models/{model}`: the checkpoint under its names."""

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field

from api.http.errors import UnknownModel
from api.http.field_errors import printable
from api.http.response_model import ResponseModel
from api.openai.errors import responses
from api.submit.dependencies import ServiceCard, ServiceSettings
from model.card import Card

_CREATED = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
"""Clients require a date, and cards have none."""

router = APIRouter(prefix="/v1", tags=["openai"])


class Model(ResponseModel):
    """A model name that requests may use."""

    id: str = Field(examples=["kirazuri-v1"])
    object: Literal["model"] = "model"
    created: int = Field(description="Always the same: a card has no date.", examples=[_CREATED])
    owned_by: str = Field(description="Title of the checkpoint.", examples=["Kirazuri v1"])


class ModelList(ResponseModel):
    """All model names, except those that only match a pattern in the settings."""

    object: Literal["list"] = "list"
    data: list[Model]


def model_names(card: Card, aliases: str) -> Sequence[str]:
    """The name of the card, and the aliases that are not patterns."""
    return [card.name, *(alias for alias in _patterns(aliases) if not set(alias) & set("*?["))]


def check_model_name(name: str | None, card: Card, aliases: str) -> str:
    """The requested model name, or the name of the card if none is requested.

    `aliases` are names and `fnmatch` patterns, separated by commas.

    Raises:
        UnknownModel: the name is neither the name of the card nor an alias.
    """
    if name is None or name == card.name:
        return card.name
    if any(fnmatchcase(name, pattern) for pattern in _patterns(aliases)):
        return name
    known = ", ".join(model_names(card, aliases))
    raise UnknownModel(f"model {printable(name)!r} not found; available: {known}")


def _patterns(aliases: str) -> Sequence[str]:
    return [alias.strip() for alias in aliases.split(",") if alias.strip()]


def _model(name: str, card: Card) -> Model:
    return Model(id=name, created=_CREATED, owned_by=card.title)


@router.get(
    "/models",
    operation_id="openaiListModels",
    summary="List models (OpenAI API)",
    responses=responses(401),
)
async def list_models(card: ServiceCard, settings: ServiceSettings) -> ModelList:
    """The loaded checkpoint under each of its names. All names produce the same images."""
    listed = model_names(card, settings.openai_models)
    return ModelList(data=[_model(name, card) for name in listed])


@router.get(
    "/models/{model}",
    operation_id="openaiGetModel",
    summary="Get a model (OpenAI API)",
    responses=responses(401, 404),
)
async def get_model(
    model: Annotated[str, Path(examples=["kirazuri-v1"])],
    card: ServiceCard,
    settings: ServiceSettings,
) -> Model:
    """The checkpoint, if `model` is its name or a name that `KIRAZURI_OPENAI_MODELS` allows."""
    return _model(check_model_name(model, card, settings.openai_models), card)

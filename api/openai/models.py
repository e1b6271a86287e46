"""`GET /v1/models`: the checkpoint under its own name and those that clients insist on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from api.http.errors import UnknownModel
from api.http.field_errors import printable
from api.openai.errors import responses
from api.submit.dependencies import ServiceCard, ServiceSettings
from model.card import Card

_CREATED = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
"""Cards have no date, and clients want one."""

router = APIRouter(prefix="/v1", tags=["openai"])


class Model(BaseModel):
    """A name that `model` of a request may have."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(examples=["kirazuri-v1"])
    object: Literal["model"] = "model"
    created: int = Field(description="Always the same; a card has no date.", examples=[_CREATED])
    owned_by: str = Field(description="The title of the checkpoint.", examples=["Kirazuri v1"])


class ModelList(BaseModel):
    """All names but those that only a pattern of the settings allows."""

    model_config = ConfigDict(frozen=True)

    object: Literal["list"] = "list"
    data: list[Model]


def names(card: Card, aliases: str) -> Sequence[str]:
    """The names to list: the card's and the aliases that are no patterns."""
    return [card.name, *(alias for alias in _patterns(aliases) if not set(alias) & set("*?["))]


def check_name(name: str | None, card: Card, aliases: str) -> str:
    """The name a request gives the checkpoint; that of the card where it gives none.

    Raises:
        UnknownModel: neither the card's name nor one of the aliases.
    """
    if name is None or name == card.name:
        return card.name
    if any(fnmatchcase(name, pattern) for pattern in _patterns(aliases)):
        return name
    known = ", ".join(names(card, aliases))
    raise UnknownModel(f"there is no model {printable(name)!r} here; there is {known}")


def _patterns(aliases: str) -> Sequence[str]:
    return [alias.strip() for alias in aliases.split(",") if alias.strip()]


def _model(name: str, card: Card) -> Model:
    return Model(id=name, created=_CREATED, owned_by=card.title)


@router.get(
    "/models",
    operation_id="openaiListModels",
    summary="Models, as OpenAI lists them",
    responses=responses(401),
)
async def list_models(card: ServiceCard, settings: ServiceSettings) -> ModelList:
    """The loaded checkpoint under its names. There is one; all of them make the same pictures."""
    listed = names(card, settings.openai_models)
    return ModelList(data=[_model(name, card) for name in listed])


@router.get(
    "/models/{model}",
    operation_id="openaiGetModel",
    summary="A model, as OpenAI describes it",
    responses=responses(401, 404),
)
async def get_model(
    model: Annotated[str, Path(examples=["kirazuri-v1"])],
    card: ServiceCard,
    settings: ServiceSettings,
) -> Model:
    """Whether a name stands for the checkpoint: its own, or one of `KIRAZURI_OPENAI_MODELS`."""
    return _model(check_name(model, card, settings.openai_models), card)

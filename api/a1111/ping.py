"""What the A1111 surface's clients call beside `/sdapi/v1`: is it up, and a sign-in."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.a1111.model_names import checkpoint_title
from api.a1111.response import responses
from api.a1111.schemas import A1111Done
from api.submit.dependencies import ServiceCard

router = APIRouter(tags=["a1111"])


class A1111SystemInfo(BaseModel):
    """What kind of program this is."""

    model_config = ConfigDict(frozen=True)

    version: str = Field(
        alias="Version", description="Of the service.", examples=["kirazuri-server 0.1.0"]
    )
    checkpoint: str = Field(
        alias="Checkpoint",
        description="`title` of the checkpoint.",
        examples=["kirazuri-anima-v1.safetensors"],
    )


@router.get(
    "/internal/ping",
    operation_id="a1111Ping",
    summary="Is it up",
    responses=responses(401),
)
async def ping() -> A1111Done:
    """It is; whether it can serve, `/readyz` tells."""
    return A1111Done()


@router.get(
    "/internal/sysinfo",
    operation_id="a1111SystemInfo",
    summary="What kind of program this is",
    responses=responses(401),
)
async def system_info(request: Request, card: ServiceCard) -> A1111SystemInfo:
    """Version and checkpoint, and nothing of the machine."""
    version = f"kirazuri-server {request.app.version}"
    fields: dict[str, Any] = {"Version": version, "Checkpoint": checkpoint_title(card)}
    return A1111SystemInfo(**fields)


@router.post(
    "/login",
    operation_id="a1111Login",
    summary="Nothing to do: a key goes with every call",
    responses=responses(401),
)
async def login() -> A1111Done:
    """For clients that sign in before they call; the key is the password of Basic."""
    return A1111Done()

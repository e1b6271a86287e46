"""Routes that A1111 clients call outside of `/sdapi/v1`: health check, system info, login."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from api.a1111.checkpoint import checkpoint_title
from api.a1111.errors import responses
from api.a1111.schemas import A1111Body, A1111Done
from api.submit.dependencies import ServiceCard

router = APIRouter(tags=["a1111"])


class A1111SystemInfo(A1111Body):
    """Version of the service and name of its checkpoint."""

    version: str = Field(
        alias="Version", description="Service version.", examples=["kirazuri-server 0.1.0"]
    )
    checkpoint: str = Field(
        alias="Checkpoint",
        description="`title` of the checkpoint.",
        examples=["kirazuri-anima-v1.safetensors"],
    )


@router.get(
    "/internal/ping",
    operation_id="a1111Ping",
    summary="Check that the service is up",
    responses=responses(401),
)
async def ping() -> A1111Done:
    """Always succeeds. `GET /readyz` tells whether requests can be served."""
    return A1111Done()


@router.get(
    "/internal/sysinfo",
    operation_id="a1111SystemInfo",
    summary="Version and checkpoint",
    responses=responses(401),
)
async def system_info(request: Request, card: ServiceCard) -> A1111SystemInfo:
    """Version and checkpoint of the service. Nothing about the machine is disclosed."""
    version = f"kirazuri-server {request.app.version}"
    fields: dict[str, Any] = {"Version": version, "Checkpoint": checkpoint_title(card)}
    return A1111SystemInfo(**fields)


@router.post(
    "/login",
    operation_id="a1111Login",
    summary="Accept a login; does nothing",
    responses=responses(401),
)
async def login() -> A1111Done:
    """For clients that log in before they call. Every call must still carry the API key."""
    return A1111Done()

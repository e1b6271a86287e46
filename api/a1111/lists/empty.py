"""Routes for web UI features that this service lacks: empty lists and calls without effect."""

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from api.a1111.errors import responses
from api.a1111.lists.schemas import A1111Named
from api.a1111.schemas import A1111Body, A1111Done

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])


class A1111Embeddings(A1111Body):
    """Textual inversions: not supported."""

    loaded: dict[str, Any] = Field(description="Always empty.", examples=[{}])
    skipped: dict[str, Any] = Field(description="Always empty.", examples=[{}])


class A1111Scripts(A1111Body):
    """Scripts: not supported."""

    txt2img: list[str] = Field(description="Always empty.", examples=[[]])
    img2img: list[str] = Field(description="Always empty.", examples=[[]])


class A1111Flags(A1111Body):
    """Command line flags of the web UI."""

    api: bool = Field(default=True, description="Always true.", examples=[True])
    nowebui: bool = Field(default=True, description="Always true.", examples=[True])


class A1111Memory(A1111Body):
    """Memory usage: not reported here."""

    ram: dict[str, Any] = Field(description="Always an error.", examples=[{"error": "unavailable"}])
    cuda: dict[str, Any] = Field(
        description="Always an error.", examples=[{"error": "unavailable"}]
    )


@router.get(
    "/embeddings",
    operation_id="a1111ListEmbeddings",
    summary="List textual inversions: none",
    responses=responses(401),
)
async def list_embeddings() -> A1111Embeddings:
    """Always empty."""
    return A1111Embeddings(loaded={}, skipped={})


@router.get(
    "/scripts",
    operation_id="a1111ListScripts",
    summary="List scripts: none",
    responses=responses(401),
)
async def list_scripts() -> A1111Scripts:
    """Always empty."""
    return A1111Scripts(txt2img=[], img2img=[])


@router.get(
    "/cmd-flags",
    operation_id="a1111Flags",
    summary="Command line flags",
    responses=responses(401),
)
async def get_flags() -> A1111Flags:
    """The flags that clients look for."""
    return A1111Flags()


@router.get(
    "/memory",
    operation_id="a1111Memory",
    summary="Memory usage: not reported",
    responses=responses(401),
)
async def get_memory() -> A1111Memory:
    """The response of a web UI that cannot measure memory. See `/metrics` for the workers."""
    unknown = {"error": "unavailable"}
    return A1111Memory(ram=unknown, cuda=unknown)


async def _empty_list() -> list[A1111Named]:
    """Always empty."""
    return []


async def _no_effect() -> A1111Done:
    """Does nothing."""
    return A1111Done()


for path, operation_id, content in (
    ("prompt-styles", "a1111ListStyles", "styles"),
    ("hypernetworks", "a1111ListHypernetworks", "hypernetworks"),
    ("face-restorers", "a1111ListFaceRestorers", "face restorers"),
    ("realesrgan-models", "a1111ListRealesrganModels", "Real-ESRGAN models"),
):
    router.add_api_route(
        f"/{path}",
        _empty_list,
        methods=["GET"],
        operation_id=operation_id,
        summary=f"List {content}: none",
        responses=responses(401),
    )

for path, operation_id in (
    ("refresh-checkpoints", "a1111RefreshCheckpoints"),
    ("refresh-vae", "a1111RefreshVae"),
    ("refresh-loras", "a1111RefreshLoras"),
    ("refresh-embeddings", "a1111RefreshEmbeddings"),
):
    router.add_api_route(
        f"/{path}",
        _no_effect,
        methods=["POST"],
        operation_id=operation_id,
        summary="Does nothing: lists are always up to date",
        responses=responses(401),
    )

"""Dependencies that hand the parts of the running service to the routes."""

import time
from typing import Annotated, Any

from fastapi import Depends, Request

from api.auth.caller import Caller
from api.auth.key_cache import KeyCache
from api.auth.signed_urls import UrlSigner
from api.http.metrics import HttpMetrics
from api.submit.images.input_images import InputImages
from api.submit.lora_list import LoraList
from model.card import Card
from model.prompting.known_tags import KnownTags
from model.prompting.tokens import Tokenizers
from worker.queue.job_queue import JobQueue
from worker.settings import Settings
from worker.store.image_store import ImageStore


def from_state(name: str) -> Any:
    """A dependency on `request.state.NAME`.

    The lifespan fills the state (`ServiceState` in `api/main.py`); the authentication middleware
    adds `caller`.
    """

    async def read(request: Request) -> Any:  # async: FastAPI runs plain functions in a thread
        return getattr(request.state, name)

    return Depends(read)


CurrentCaller = Annotated[Caller, from_state("caller")]
Keys = Annotated[KeyCache, from_state("keys")]
Loras = Annotated[LoraList, from_state("loras")]
Metrics = Annotated[HttpMetrics, from_state("metrics")]
PromptTokenizers = Annotated[Tokenizers | None, from_state("tokenizers")]
"""The checkpoint's tokenizers; None if this process has no checkpoint folder."""
ServiceCard = Annotated[Card, from_state("card")]
ServiceSettings = Annotated[Settings, from_state("settings")]
Store = Annotated[ImageStore, from_state("store")]
TagList = Annotated[KnownTags, from_state("tags")]


async def owned_queue(request: Request) -> JobQueue:
    """The queue as the caller sees it: without the jobs of other owners."""
    queue: JobQueue = request.state.queue
    return queue.owned_by(request.state.caller.owner)


Queue = Annotated[JobQueue, Depends(owned_queue)]


async def owned_images(request: Request) -> InputImages:
    """Reads input images; stored images of other owners count as missing."""
    images: InputImages = request.state.input_images
    owner = request.state.caller.owner
    return images.for_owner((await owned_queue(request)).owner_index) if owner else images


RequestImages = Annotated[InputImages, Depends(owned_images)]


async def base_url(request: Request) -> str:
    """Prefix of absolute URLs, without a trailing slash: as configured, or as the client called."""
    return (request.state.settings.public_url or str(request.base_url)).rstrip("/")


BaseUrl = Annotated[str, Depends(base_url)]


async def _url_signer(
    caller: CurrentCaller, keys: Keys, prefix: BaseUrl, settings: ServiceSettings
) -> UrlSigner:
    until = time.time() + settings.signed_url_seconds
    return UrlSigner(caller.owner, keys.link_secret, prefix, until)


CallerUrlSigner = Annotated[UrlSigner, Depends(_url_signer)]
"""Signs URLs in the caller's name, so that a browser can read them without a header."""

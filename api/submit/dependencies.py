"""What the routes need of the running service, by type. Filled by the lifespan in `api/main.py`."""

import time
from typing import Annotated, TypedDict, cast

from fastapi import Depends, Request

from api.auth.caller import Caller
from api.auth.key_cache import KeyCache
from api.auth.key_limits import RateLimits
from api.auth.signed_urls import UrlSigner
from api.http.metrics import HttpMetrics
from api.submit.input_images import InputImages
from api.submit.lora_list import LoraList
from api.submit.policy_check import PolicyCheck
from api.submit.provenance import Verifier
from model.card import Card
from model.prompting.tokens import Tokenizers
from model.request import GenerationRequest
from worker.queue.job_queue import JobQueue
from worker.settings import Settings
from worker.store.image_store import ImageStore


class State(TypedDict):
    """The lifespan's state; every request sees it as `request.state`."""

    settings: Settings
    card: Card
    queue: JobQueue
    store: ImageStore
    metrics: HttpMetrics
    tokenizers: Tokenizers | None
    pictures: InputImages
    loras: LoraList
    request_model: type[GenerationRequest]
    keys: KeyCache
    rates: RateLimits
    verifier: Verifier
    guard: PolicyCheck


# `async def`, because FastAPI runs plain functions in a thread.
async def _settings(request: Request) -> Settings:
    return cast(Settings, request.state.settings)


async def _card(request: Request) -> Card:
    return cast(Card, request.state.card)


async def _caller(request: Request) -> Caller:
    return cast(Caller, request.state.caller)


CurrentCaller = Annotated[Caller, Depends(_caller)]
"""Whose exchange this is; the gate knows."""


async def _queue(request: Request, caller: CurrentCaller) -> JobQueue:
    return cast(JobQueue, request.state.queue).owned_by(caller.owner)


async def _store(request: Request) -> ImageStore:
    return cast(ImageStore, request.state.store)


async def _metrics(request: Request) -> HttpMetrics:
    return cast(HttpMetrics, request.state.metrics)


async def _tokenizers(request: Request) -> Tokenizers | None:
    return cast(Tokenizers | None, request.state.tokenizers)


async def _pictures(request: Request, caller: CurrentCaller) -> InputImages:
    pictures = cast(InputImages, request.state.pictures)
    if not caller.owner:
        return pictures
    return pictures.seen_by((await _queue(request, caller)).belongings)


async def _loras(request: Request) -> LoraList:
    return cast(LoraList, request.state.loras)


async def _keys(request: Request) -> KeyCache:
    return cast(KeyCache, request.state.keys)


async def _verifier(request: Request) -> Verifier:
    return cast(Verifier, request.state.verifier)


async def _guard(request: Request) -> PolicyCheck:
    return cast(PolicyCheck, request.state.guard)


async def _base_url(request: Request) -> str:
    return (request.state.settings.public_url or str(request.base_url)).rstrip("/")


ServiceSettings = Annotated[Settings, Depends(_settings)]
ServiceCard = Annotated[Card, Depends(_card)]
Queue = Annotated[JobQueue, Depends(_queue)]
"""The queue as the caller may see it: jobs of others are not there."""
Store = Annotated[ImageStore, Depends(_store)]
Metrics = Annotated[HttpMetrics, Depends(_metrics)]
PromptTokenizers = Annotated[Tokenizers | None, Depends(_tokenizers)]
"""The checkpoint's tokenizers; None where this process has no checkpoint folder."""
RequestImages = Annotated[InputImages, Depends(_pictures)]
ImageVerifier = Annotated[Verifier, Depends(_verifier)]
Loras = Annotated[LoraList, Depends(_loras)]
Keys = Annotated[KeyCache, Depends(_keys)]
RequestPolicyCheck = Annotated[PolicyCheck, Depends(_guard)]
BaseUrl = Annotated[str, Depends(_base_url)]
"""Prefix of absolute URLs, without a slash at its end: as configured, or as the client called."""


async def _signer(
    caller: CurrentCaller, keys: Keys, base_url: BaseUrl, settings: ServiceSettings
) -> UrlSigner:
    until = time.time() + settings.signed_url_seconds
    return UrlSigner(caller.owner, keys.link_secret, base_url, until)


CallerUrlSigner = Annotated[UrlSigner, Depends(_signer)]
"""Makes links that need no header, in the name of this exchange's caller."""

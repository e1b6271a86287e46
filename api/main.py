"""Builds the FastAPI application; `python -m api` serves it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict, cast

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Lifespan

from api.a1111 import router as a1111
from api.auth.key_cache import KeyCache
from api.auth.key_limits import RateLimits
from api.http.error_handlers import add_error_handlers, handle_exception
from api.http.metrics import HttpMetrics
from api.http.problem import ErrorRenderer
from api.mcp import route as mcp
from api.mcp.messages import mcp_error
from api.middleware.authentication import AuthenticationMiddleware
from api.middleware.browser_security import cors_options
from api.middleware.client_paths import ClientPathsMiddleware
from api.middleware.request_context import RequestContextMiddleware
from api.openai import models
from api.openai.conversation import chat, responses
from api.openai.errors import openai_error
from api.openai.images import routes as openai_images
from api.openapi import document as openapi
from api.routes.images import images, verify
from api.routes.images.evidence import Verifier
from api.routes.jobs import generate, jobs, links, replay
from api.routes.service import capabilities, health, playground, problems
from api.routes.service import docs_page as pages
from api.routes.service import tags as tag_completion
from api.submit.images.input_images import InputImages
from api.submit.lora_list import LoraList, lora_check
from api.submit.policy_check import PolicyCheck
from api.version import package_version
from api.webhooks import schemas as webhook_schemas
from api.webhooks.schemas import submission_type
from model.card import Card, load_card
from model.errors import CheckpointError
from model.files.lora.folder import LoraFolder
from model.policy.policy import load_policy
from model.prompting.known_tags import KnownTags, load_known_tags
from model.prompting.tokens import Tokenizers, load_tokenizers
from model.request import GenerationRequest
from worker.errors import QueueUnavailable
from worker.images.c2pa_manifest import C2paReader
from worker.job import checkpoint_of
from worker.queue.job_queue import JobQueue
from worker.settings import Settings, redis_dsn
from worker.store.image_store import ImageStore
from worker.store.open_store import open_store
from worker.telemetry import logs, tracing
from worker.wrong_settings import naming, read_settings

log = logging.getLogger(__name__)

ERROR_RENDERERS: Mapping[str, ErrorRenderer] = {
    "/v1": openai_error,
    "/mcp": mcp_error,
    **a1111.ERROR_RENDERERS,
}
"""Error renderers by path prefix; all other paths answer with problem+json."""

_UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths of probes, called every few seconds."""


class ServiceState(TypedDict):
    """The parts of the running service, as `request.state` (see api/submit/dependencies.py)."""

    settings: Settings
    card: Card
    queue: JobQueue
    store: ImageStore
    metrics: HttpMetrics
    tokenizers: Tokenizers | None
    tags: KnownTags
    input_images: InputImages
    loras: LoraList
    request_model: type[GenerationRequest]
    keys: KeyCache
    rates: RateLimits
    verifier: Verifier
    policy: PolicyCheck


def create_app(settings: Settings | None = None) -> FastAPI:
    """The HTTP service; without `settings` it reads the `KIRAZURI_*` variables.

    Raises:
        ValueError: a setting, or the file that it names, is wrong; the message names it.
    """
    settings = settings or read_settings()
    with naming("card"):
        card = load_card(settings.card)
    store = open_store(settings)
    metrics = HttpMetrics(package_version())
    loras = LoraFolder(settings.lora_dir, lora_check(settings, card), reads_numbers=True)
    verifier = Verifier(C2paReader(settings))
    request_model = submission_type(card, settings, lambda: loras.files, lambda: loras.refused)
    with naming("keys_file"):
        keys = KeyCache(settings.keys_file)
    policy = _policy_check(settings, card, metrics)
    with naming("tags_file"):
        tags = load_known_tags(settings.tags_file, card.prompting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[ServiceState]:
        logs.configure_logging(settings)
        tracing.start_tracing("kirazuri-api")
        queue = JobQueue(redis_dsn(settings), settings, checkpoint=checkpoint_of(card))
        rates = RateLimits(queue.client)
        tokenizers = await asyncio.to_thread(_load_tokenizers, settings, card)
        lora_list = LoraList(loras)
        try:
            await _open_keys(keys, settings)
            await _log_faults(queue)
            yield ServiceState(
                settings=settings,
                card=card,
                queue=queue,
                store=store,
                metrics=metrics,
                tokenizers=tokenizers,
                tags=tags,
                input_images=InputImages(card, store),
                loras=lora_list,
                request_model=request_model,
                keys=keys,
                rates=rates,
                verifier=verifier,
                policy=policy,
            )
        finally:
            await keys.close()
            await lora_list.close()
            await queue.close()
            await asyncio.to_thread(tracing.flush_spans)

    app = _fastapi(card, lifespan)
    _add_middleware(app, settings, keys, metrics)
    add_error_handlers(app)
    _add_routes(app, card, request_model)
    webhook_schemas.add_to_openapi(app.webhooks)
    openapi.install(app, card, request_model)
    return app


def _policy_check(settings: Settings, card: Card, metrics: HttpMetrics) -> PolicyCheck:
    with naming("policy_file"):
        policy = load_policy(settings.policy_file)
    return PolicyCheck(
        policy,
        card,
        metrics,
        ceiling=settings.max_rating,
        logs_prompts=settings.policy_log_prompts,
    )


def _fastapi(card: Card, lifespan: Lifespan[FastAPI]) -> FastAPI:
    # FastAPIOffline serves the scripts of `/docs` itself (api/routes/service/docs_page.py).
    app = FastAPIOffline(
        title="Kirazuri Server",
        version=package_version(),
        summary="From a Danbooru-style prompt to an image URL.",
        description=f"Serves {card.title}. {card.summary}",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry={
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope["path"] in _UNTRACED,
        },
    )
    openapi.serve_as_text(app)
    return app


def _add_middleware(app: FastAPI, settings: Settings, keys: KeyCache, metrics: HttpMetrics) -> None:
    """From the innermost to the outermost."""
    app.add_middleware(
        AuthenticationMiddleware, keys=keys, settings=settings, on_error=handle_exception
    )
    app.add_middleware(
        RequestContextMiddleware,
        metrics=metrics,
        settings=settings,
        error_renderers=ERROR_RENDERERS,
    )
    app.add_middleware(ClientPathsMiddleware)
    if settings.cors_origins:
        # Outermost, so that web pages can read error responses too.
        app.add_middleware(CORSMiddleware, **cors_options(settings))


def _add_routes(app: FastAPI, card: Card, request_model: type[GenerationRequest]) -> None:
    app.include_router(generate.routes(request_model))
    for module in (
        *(jobs, links, replay, images, verify),
        *(capabilities, tag_completion, health, problems, pages, playground),
    ):
        app.include_router(module.router)
    app.include_router(models.router)
    app.include_router(openai_images.router)
    app.include_router(chat.router)
    app.include_router(responses.router)
    app.include_router(a1111.router)
    app.include_router(mcp.routes(card, request_model))
    _answer_head(app)


def _answer_head(app: FastAPI) -> None:
    """Let HEAD be answered wherever GET is; the server leaves out the body."""
    routes = list(iter_route_contexts(app.routes))
    own = {route.path for route in routes if "HEAD" in (route.methods or ())}
    for route in routes:
        if "GET" in (route.methods or ()) and route.path not in own:
            app.add_api_route(
                f"{route.path}",
                cast(Callable[..., Any], route.endpoint),
                methods=["HEAD"],
                response_class=route.response_class,
                response_model=route.response_model,
                status_code=route.status_code,
                include_in_schema=False,
            )


async def _open_keys(keys: KeyCache, settings: Settings) -> None:
    if settings.auth == "off":
        return
    await keys.open(redis_dsn(settings))
    if settings.auth == "required" and keys.is_known and keys.is_empty:
        log.warning("API keys are required, but there are none; create one: kirazuri keys add")


async def _log_faults(queue: JobQueue) -> None:
    """Log why Redis cannot be used, or may lose jobs; the service starts anyway."""
    try:
        await queue.state.server()
    except QueueUnavailable as exc:
        log.warning("event=redis_away reason=%s", exc)


def _load_tokenizers(settings: Settings, card: Card) -> Tokenizers | None:
    """The tokenizers of the checkpoint folder; without the folder, tokens are not counted."""
    try:
        return load_tokenizers(card, settings.checkpoint_dir)
    except CheckpointError as exc:
        log.warning("cannot count the tokens of prompts: %s", exc)
        return None

"""Understands the paths that clients build from a base URL with a part too many or too few.

A whole URL in place of the path, as clients of a proxy send it (RFC 9112, 3.2.2), means its path.
Beyond that, only paths of the OpenAI and A1111 APIs and of MCP are changed. Paths of the native
API are exact.
"""

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_DIALECTS = re.compile(r"/(?:v1|sdapi|internal|login|mcp)(?:/|$)")
_DOUBLED = re.compile(r"^(/v1|/sdapi/v1)\1+(?=/|$)")
_ORIGIN = re.compile(r"^https?://[^/]*", re.IGNORECASE)
_OTHER_BASES = re.compile(
    r"^(?:/openai/deployments/[^/]+|(?:/openai|/api)?/v1(?=/|$)|/openai(?=/))", re.IGNORECASE
)
"""Base URLs of other servers that have the OpenAI API: of Azure, and behind other prefixes."""

_SLASHES = re.compile(r"/{2,}")

_OPENAI_PATHS: Final = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/images/edits",
    "/images/generations",
    "/images/variations",
    "/models",
    "/responses",
)
"""Paths that clients of the OpenAI API call below their base URL; no native path is among them."""


class ClientPathsMiddleware:
    """ASGI middleware around all that look at the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the path that its client means."""
        if scope["type"] == "http":
            scope = {**scope, "path": meant_path(scope["path"])}
        await self._app(scope, receive, send)


def meant_path(path: str) -> str:
    """The path without a slash at its end, doubled slashes and a doubled prefix, and with `/v1`.

    For example `/v1/v1//models/`, `/models` and `/openai/v1/models` all mean `/v1/models`.
    """
    path = _ORIGIN.sub("", path) or "/"
    meant = _SLASHES.sub("/", path).rstrip("/")
    if any(meant == known or meant.startswith(f"{known}/") for known in _OPENAI_PATHS):
        return f"/v1{meant}"
    meant, is_other = _OTHER_BASES.subn("/v1", meant)
    return _DOUBLED.sub(r"\1", meant) if is_other or _DIALECTS.match(meant) else path

"""Who is there: an exchange gets its caller here, before its body is read, or is refused.

What is not listed as open is closed, so that a new route cannot be forgotten.
"""

import base64
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from fastapi import Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import signed_urls as link_tokens
from api.auth.caller import ANYONE, Caller
from api.auth.key_cache import KeyCache
from api.auth.key_limits import headers as headers_of
from api.http.errors import Unauthorized
from worker.auth.api_keys import ApiKey
from worker.errors import QueueUnavailable
from worker.settings import Settings

_OPEN = frozenset({"/", "/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
_OPEN_BELOW = ("/problems/", "/static-offline-docs/")

_BASIC_BELOW = ("/sdapi/", "/internal/", "/login")
"""Whose clients know Basic alone. Elsewhere that would make browsers ask for a password."""

_MARKS_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-real-ip", "via")

Refuse = Callable[[Request, Exception], Awaitable[Response]]


def is_open(path: str) -> bool:
    """Whether a path, or its template, needs no key."""
    return path in _OPEN or path.startswith(_OPEN_BELOW)


class AuthenticationMiddleware:
    """ASGI middleware; puts the caller into the exchange's state."""

    def __init__(self, app: ASGIApp, *, ring: KeyCache, settings: Settings, refuse: Refuse) -> None:
        self._app = app
        self._ring = ring
        self._settings = settings
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one exchange through, or answer it."""
        if scope["type"] == "http":
            try:
                scope["state"]["caller"] = self._caller(scope)
            except (Unauthorized, QueueUnavailable) as exc:
                response = await self._refuse(Request(scope), exc)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, _with_limits(scope, send))

    def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        if is_open(scope["path"]) or not self._needs_key(scope, headers):
            return ANYONE
        offered = _offered(headers.get("authorization", ""))
        key = next(filter(None, map(self._ring.find, offered)), None) or self._of_link(scope)
        if key is not None:
            return Caller(owner=key.id, limits=key.limits)
        if not self._ring.is_known:
            raise QueueUnavailable("Redis has not said yet which API keys there are")
        is_basic = scope["path"].startswith(_BASIC_BELOW)
        raise Unauthorized(is_key_wrong=bool(offered), is_basic=is_basic)

    def _needs_key(self, scope: Scope, headers: Headers) -> bool:
        if self._settings.auth != "auto":
            return self._settings.auth == "required"
        # While Redis has not said whether there are keys, there may be.
        return (
            self._ring.is_armed
            or not self._ring.is_known
            or not _is_from_here(scope, headers, self._settings.listen)
        )

    def _of_link(self, scope: Scope) -> ApiKey | None:
        """The key of a signed link, good for reading its very path."""
        secret = self._ring.link_secret
        tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if not tokens or secret is None or scope["method"] not in ("GET", "HEAD"):
            return None
        owner = link_tokens.owner_of(tokens[0], scope["path"], secret)
        return self._ring.by_id(owner) if owner else None


def _with_limits(scope: Scope, send: Send) -> Send:
    """`send`, with what is left of the key's limits among the headers, where it was counted."""

    async def send_with_limits(message: Message) -> None:
        if message["type"] == "http.response.start" and "key_limits" in scope["state"]:
            MutableHeaders(scope=message).update(headers_of(scope["state"]["key_limits"]))
        await send(message)

    return send_with_limits


def _offered(authorization: str) -> list[str]:
    """What may be a key: of Bearer the token, of Basic the password or the user."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return [value.strip()]
    if scheme.lower() != "basic":
        return []
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:  # no base64, no ASCII, or not UTF-8 inside
        return []
    return [part for part in (password, user) if part]


def _is_from_here(scope: Scope, headers: Headers, listen: str | None) -> bool:
    """Whether only this machine's own programs can have sent this.

    A proxy listens for others, and gives itself away. A name with a dot may be one whose owner lets
    it point to this machine, to have visitors' browsers call here (DNS rebinding).
    """
    if any(mark in headers for mark in _MARKS_OF_PROXIES):
        return False
    address = _host(listen) if listen else (scope.get("server") or ("",))[0]
    named = _host(headers.get("host", ""))
    is_plain_name = "." not in named or named.endswith(".localhost")
    return _is_loopback(address) and (is_plain_name or _is_address(named))


def _host(text: str) -> str:
    """The host of host:port; "" of a port alone, which means all addresses."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, _ = text.rpartition(":")
    if colon:
        return host
    return "" if text.isdigit() else text


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback

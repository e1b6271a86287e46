"""Authentication middleware: finds the caller of each request before its body is read.

Every path that is not listed as public needs a key, so a new route is protected by default.
"""

import base64
import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import signed_urls
from api.auth.caller import ANYONE, Caller
from api.auth.key_cache import KeyCache
from api.auth.key_limits import headers as limit_headers
from api.auth.proxy_marks import shows_proxy
from api.http.errors import TooManyRequests, Unauthorized
from worker.auth.api_keys import ApiKey
from worker.errors import QueueUnavailable
from worker.settings import Settings

_PUBLIC_PATHS = frozenset(
    {"/", "/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
)
_PUBLIC_PREFIXES = ("/problems/", "/static-offline-docs/", "/playground/")

_BASIC_PREFIXES = ("/sdapi/", "/internal/", "/login")
"""Clients of these paths know only Basic; elsewhere browsers would show a password dialog."""

_SHARE_OF_A_KEY = 0.4
"""Part of all connections that one key may use; two that use theirs leave some to others."""

ExceptionHandler = Callable[[Request, Exception], Awaitable[Response]]


def is_public_path(path: str) -> bool:
    """Whether a path or path template needs no key."""
    return path in _PUBLIC_PATHS or path.startswith(_PUBLIC_PREFIXES)


class AuthenticationMiddleware:
    """ASGI middleware that sets `request.state.caller`."""

    def __init__(
        self, app: ASGIApp, *, keys: KeyCache, settings: Settings, on_error: ExceptionHandler
    ) -> None:
        self._app = app
        self._keys = keys
        self._settings = settings
        self._on_error = on_error
        self._in_progress = Counter[str]()
        share = max(1, int(settings.max_connections * _SHARE_OF_A_KEY))
        self._most_per_key = settings.max_requests_per_key or share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller, or answer with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = scope["state"]["caller"] = self._caller(scope)
            self._check_number(caller)
        except (Unauthorized, QueueUnavailable, TooManyRequests) as exc:
            response = await self._on_error(Request(scope), exc)
            await response(scope, receive, send)
            return
        self._in_progress[caller.owner] += 1
        try:
            await self._app(scope, receive, _with_limit_headers(scope, send))
        finally:
            self._in_progress[caller.owner] -= 1
            if not self._in_progress[caller.owner]:
                del self._in_progress[caller.owner]

    def _check_number(self, caller: Caller) -> None:
        """Leave connections to others. Without keys, nobody can be told from anybody else."""
        if caller.owner and self._in_progress[caller.owner] >= self._most_per_key:
            raise TooManyRequests(self._most_per_key)

    def _caller(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        if is_public_path(scope["path"]) or not self._needs_key(scope, headers):
            return ANYONE
        candidates = _credentials(headers.get("authorization", ""))
        key = next(filter(None, map(self._keys.find, candidates)), None) or self._key_of_signed_url(
            scope
        )
        if key is not None:
            return Caller(owner=key.id, limits=key.limits)
        if not self._keys.is_known:
            raise QueueUnavailable("the API keys have not been read from Redis yet")
        is_basic = scope["path"].startswith(_BASIC_PREFIXES)
        is_link = b"token=" in scope["query_string"]
        raise Unauthorized(is_key_wrong=bool(candidates), is_basic=is_basic, is_link=is_link)

    def _needs_key(self, scope: Scope, headers: Headers) -> bool:
        if self._settings.auth != "auto":
            return self._settings.auth == "required"
        # Until the keys have been read from Redis, assume that there are some.
        return (
            self._keys.has_had_keys
            or not self._keys.is_known
            or not _is_local(scope, headers, self._settings.listen)
        )

    def _key_of_signed_url(self, scope: Scope) -> ApiKey | None:
        """The key that signed this URL; a signature allows reading one path."""
        secret = self._keys.link_secret
        token = signed_urls.token_in(scope["query_string"])
        if token is None or secret is None or scope["method"] not in ("GET", "HEAD"):
            return None
        owner = signed_urls.owner_of(token, scope["path"], secret)
        return self._keys.by_id(owner) if owner else None


def _with_limit_headers(scope: Scope, send: Send) -> Send:
    """`send` that adds the headers of the key's limits, if any were counted."""

    async def send_with_limit_headers(message: Message) -> None:
        if message["type"] == "http.response.start" and "key_limits" in scope["state"]:
            MutableHeaders(scope=message).update(limit_headers(scope["state"]["key_limits"]))
        await send(message)

    return send_with_limit_headers


def _credentials(authorization: str) -> list[str]:
    """Possible keys: the token of Bearer; password and user of Basic."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return [value.strip()]
    if scheme.lower() != "basic":
        return []
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:  # not base64, or not UTF-8
        return []
    return [part for part in (password, user) if part]


def _is_local(scope: Scope, headers: Headers, listen: str | None) -> bool:
    """Whether only a program on this machine can have sent the request.

    A proxy forwards requests of others; its headers reveal it. A host name with a dot may belong to
    an attacker who points it to this machine to make browsers call it (DNS rebinding).
    """
    if shows_proxy(headers.keys()):
        return False
    address = _host(listen) if listen else (scope.get("server") or ("",))[0]
    host = _host(headers.get("host", ""))
    is_plain_name = "." not in host or host.endswith(".localhost")
    return _is_loopback(address) and (is_plain_name or _is_address(host))


def _host(text: str) -> str:
    """The host of host:port; "" for a port alone, which means all addresses."""
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

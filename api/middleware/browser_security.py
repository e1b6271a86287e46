"""Protection against web pages: security headers, CORS, and checks of `Host` and `Origin`."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

from api.http.field_errors import printable
from api.http.problem import ProblemResponse
from api.http.problem_types import CROSS_ORIGIN, HEAD_TOO_LARGE, WRONG_HOST
from worker.setting_values import split_commas
from worker.settings import Settings

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Defaults for every response; a route may set others."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PROBES: Final = frozenset({"/livez", "/readyz"})
"""Asked for by address, or without `Host`, by what watches the service; they tell no secret."""

_PORT = re.compile(r":\d*$")
_PORTS: Final = {"http": 80, "https": 443}


def cors_options(settings: Settings) -> dict[str, Any]:
    """Options of Starlette's CORSMiddleware. No cookies are allowed: API keys are headers."""
    return {
        "allow_origins": split_commas(settings.cors_origins),
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        "allow_headers": ["*"],  # clients send their own headers, such as X-Stainless-Lang
        "expose_headers": [
            "Content-Range",
            "ETag",
            "Location",
            "Preference-Applied",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "X-Job-Id",
            "X-Request-Id",
        ],
    }


class HostAndOriginCheck:
    """Checks the head of a request: its size, `Host` and `Origin`."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_head_bytes
        self._origins = frozenset(split_commas(settings.cors_origins))
        self._public_address = _address_of(settings.public_url or "")
        self._hosts = frozenset(split_commas(settings.allowed_hosts))
        if self._hosts and settings.public_url:
            self._hosts |= {f"{urlsplit(settings.public_url).hostname}"}

    def check(self, scope: Scope, headers: Headers, *, instance: str) -> ProblemResponse | None:
        """The error response for the request, or None if it passes."""
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in headers.raw)
        host = _PORT.sub("", headers.get("host", "")).lower()
        if size > self._max_bytes:
            kind, detail = (
                HEAD_TOO_LARGE,
                f"{size} bytes, but at most {self._max_bytes} are allowed",
            )
        elif self._hosts and host not in self._hosts and scope["path"] not in _PROBES:
            kind, detail = WRONG_HOST, f"{printable(host)!r} is not in KIRAZURI_ALLOWED_HOSTS"
        elif _may_change_something(scope) and self._is_cross_origin(headers):
            origin = printable(headers.get("origin", "another origin"))
            kind, detail = CROSS_ORIGIN, f"{origin} is not in KIRAZURI_CORS_ORIGINS"
        else:
            return None
        return ProblemResponse(kind, detail, instance)

    def _is_cross_origin(self, headers: Headers) -> bool:
        """Whether a browser sends this for a page of another origin.

        Browsers send simple requests without a CORS preflight, so CORS alone does not stop them.
        """
        origin = headers.get("origin")
        if origin in self._origins:
            return False
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("none", "same-origin")
        # Browsers send Sec-Fetch-Site only to https and to this machine, and older ones never do.
        # They always send Origin, which programs other than browsers leave out.
        return origin is not None and not self._is_own(origin, headers.get("host", ""))

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether an origin is this service's own. "null" is the origin of unknown pages.

        The scheme is not compared: behind a TLS proxy the service sees http.
        """
        scheme, _, _ = origin.partition("://")
        address = _address_of(origin)
        own = _address_of(f"{scheme}://{host.lower()}")
        return address is not None and address in (own, self._public_address)


def _may_change_something(scope: Scope) -> bool:
    """Whether a request can do more than read; the end of an event stream may cancel its job."""
    if scope["method"] not in _SAFE_METHODS:
        return True
    is_stream = scope["path"].endswith("/events")
    return is_stream and "cancel_on_disconnect" in QueryParams(scope["query_string"])


def _address_of(url: str) -> tuple[str, int] | None:
    """Host and port of a URL; None if it is not an http or https URL with a host."""
    try:
        parts = urlsplit(url)
        default = _PORTS[parts.scheme]
        port = parts.port or default
    except (KeyError, ValueError):  # another scheme; a port or an address that is none
        return None
    return (parts.hostname, port) if parts.hostname else None

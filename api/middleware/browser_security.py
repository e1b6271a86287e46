"""Protection against web pages: security headers, CORS, and checks of `Host` and `Origin`."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from api.http.field_errors import printable
from api.http.problem import ProblemResponse
from api.http.problem_types import CROSS_ORIGIN, HEAD_TOO_LARGE, WRONG_HOST
from worker.settings import Settings, split_commas

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Defaults for every response; a route may set others."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORT = re.compile(r":\d*$")


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
        elif self._hosts and host not in self._hosts:
            kind, detail = WRONG_HOST, f"{printable(host)!r} is not in KIRAZURI_ALLOWED_HOSTS"
        elif self._is_cross_origin(scope["method"], headers):
            origin = printable(headers.get("origin", "another origin"))
            kind, detail = CROSS_ORIGIN, f"{origin} is not in KIRAZURI_CORS_ORIGINS"
        else:
            return None
        return ProblemResponse(kind, detail, instance)

    def _is_cross_origin(self, method: str, headers: Headers) -> bool:
        """Whether a browser sends this for a page of another origin, and it may change something.

        Browsers send simple requests without a CORS preflight, so CORS alone does not stop them.
        """
        site = headers.get("sec-fetch-site", "none")
        return (
            method not in _SAFE_METHODS
            and site not in ("none", "same-origin")
            and headers.get("origin") not in self._origins
        )

"""What browsers are told, and whose web pages may call: headers of security, CORS, hosts.

Knows neither routes nor keys.
"""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from api.http.errors import FOREIGN_PAGE, HEAD_TOO_LARGE, WRONG_HOST
from api.http.field_errors import printable
from api.http.problem import ProblemResponse
from worker.settings import Settings, split_commas

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer that does not say otherwise itself."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORT = re.compile(r":\d*$")


def cors_options(settings: Settings) -> dict[str, Any]:
    """Starlette's CORSMiddleware for the origins of the settings. No cookies: keys are headers."""
    return {
        "allow_origins": split_commas(settings.cors_origins),
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        "allow_headers": ["*"],  # clients bring headers of their own, such as X-Stainless-Lang
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
    """Looks at a request's head before anything else does."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_head_bytes
        self._origins = frozenset(split_commas(settings.cors_origins))
        self._hosts = frozenset(split_commas(settings.allowed_hosts))
        if self._hosts and settings.public_url:
            self._hosts |= {f"{urlsplit(settings.public_url).hostname}"}

    def refusal(self, scope: Scope, headers: Headers, *, instance: str) -> ProblemResponse | None:
        """Why the request is not carried out; None where nothing speaks against it."""
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in headers.raw)
        host = _PORT.sub("", headers.get("host", "")).lower()
        if size > self._max_bytes:
            kind, detail = HEAD_TOO_LARGE, f"{size} bytes, and {self._max_bytes} are allowed"
        elif self._hosts and host not in self._hosts:
            kind, detail = WRONG_HOST, f"{printable(host)!r} is none of KIRAZURI_ALLOWED_HOSTS"
        elif self._is_foreign(scope["method"], headers):
            origin = printable(headers.get("origin", "another origin"))
            kind, detail = FOREIGN_PAGE, f"{origin} is none of KIRAZURI_CORS_ORIGINS"
        else:
            return None
        return ProblemResponse(kind, detail, instance)

    def _is_foreign(self, method: str, headers: Headers) -> bool:
        """Whether a browser says that a page which is none of ours wants to change something.

        Such a request may come without asking first (CORS) where it has neither body nor headers.
        """
        site = headers.get("sec-fetch-site", "none")
        return (
            method not in _SAFE_METHODS
            and site not in ("none", "same-origin")
            and headers.get("origin") not in self._origins
        )

"""Signed URLs: paths that can be read for a limited time without an API key in a header.

Browsers cannot send headers from EventSource and <img>.
"""

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from urllib.parse import parse_qsl

from api.http.job_schemas import absolute

_TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")


def sign(path: str, owner: str, secret: str, *, until: float) -> str:
    """The `token` parameter of a URL to `path`, valid until that Unix time."""
    expires = int(until)
    return f"{expires}.{owner}.{_signature(path, owner, expires, secret)}"


@dataclass(frozen=True, slots=True)
class UrlSigner:
    """Signs URLs for one caller; all expire at the same time."""

    owner: str
    secret: str | None
    base_url: str
    until: float

    def url(self, path: str) -> str:
        """The absolute, signed URL of `path`; unsigned if the service needs no key."""
        url = absolute(path, self.base_url)
        if not self.owner or self.secret is None or not path.startswith("/"):
            return url
        signed = sign(path, self.owner, self.secret, until=self.until)
        return f"{url}?token={signed}"


def token_in(query: bytes) -> str | None:
    """The token of a query string as `UrlSigner` makes them; None if it has anything else.

    A signature covers the path only, and a parameter that somebody added could have an effect.
    """
    match parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        case [("token", token)]:
            return token
    return None


def owner_of(token: str, path: str, secret: str) -> str | None:
    """The owner who signed `path`; None if the token is expired, forged or for another path."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    expires, owner, signature = int(match[1]), match[2], match[3]
    # In constant time, since timing would help to forge a signature byte by byte.
    if not hmac.compare_digest(signature, _signature(path, owner, expires, secret)):
        return None
    return owner if time.time() < expires else None


def _signature(path: str, owner: str, expires: int, secret: str) -> str:
    message = f"{expires}\n{owner}\n{path}".encode("utf-8", "surrogateescape")
    digest = hmac.digest(secret.encode(), message, hashlib.sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")

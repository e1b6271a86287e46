"""Signed links: a path that may be read for a while without a header, as one key's holder.

For browsers' EventSource and <img>, which can send none. Knows neither keys nor HTTP.
"""

import hashlib
import hmac
import re
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from api.http.schemas import absolute

_TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})")


def token(path: str, owner: str, secret: str, *, until: float) -> str:
    """What stands in `?token=` of a link to `path`, good until that time (Unix seconds)."""
    expires = int(until)
    return f"{expires}.{owner}.{_signature(path, owner, expires, secret)}"


@dataclass(frozen=True, slots=True)
class UrlSigner:
    """Makes links of one caller, all good until the same moment."""

    owner: str
    secret: str | None
    base_url: str
    until: float

    def url(self, path: str) -> str:
        """An absolute URL of `path`; where the service asks for no key it needs no token."""
        url = absolute(path, self.base_url)
        if not self.owner or self.secret is None or not path.startswith("/"):
            return url
        signed = token(path, self.owner, self.secret, until=self.until)
        return f"{url}?token={signed}"


def owner_of(offered: str, path: str, secret: str) -> str | None:
    """Whose link to `path` this token is of; None where it is over, forged or of another path."""
    match = _TOKEN.fullmatch(offered)
    if match is None:
        return None
    expires, owner, signature = int(match[1]), match[2], match[3]
    # Compared in constant time: here, unlike with keys, one could feel one's way to a forgery.
    if not hmac.compare_digest(signature, _signature(path, owner, expires, secret)):
        return None
    return owner if time.time() < expires else None


def _signature(path: str, owner: str, expires: int, secret: str) -> str:
    message = f"{expires}\n{owner}\n{path}".encode("utf-8", "surrogateescape")
    digest = hmac.digest(secret.encode(), message, hashlib.sha256)
    return urlsafe_b64encode(digest).decode().rstrip("=")

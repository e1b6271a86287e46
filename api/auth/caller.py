"""The caller of a request: the owner of its jobs, and the limits of the API key."""

from dataclasses import dataclass

from fastapi import Request

from api.auth.proxy_marks import shows_proxy
from worker.auth.api_keys import KeyLimits


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of an API key; `owner` is the id of the key, or "" if no key is needed."""

    owner: str
    limits: KeyLimits


ANYONE = Caller(owner="", limits=KeyLimits())
"""The caller of all requests that need no key."""


def client_address(request: Request) -> str | None:
    """The IP address of the client; None if an untrusted proxy hides it.

    uvicorn has already put the address from a trusted proxy into `request.client`.
    """
    if request.client is None:
        return None
    host, headers = request.client.host, request.headers
    if "x-forwarded-for" in headers:
        is_known = host in [part.strip() for part in headers["x-forwarded-for"].split(",")]
    else:
        is_known = not shows_proxy(headers.keys())
    return host if is_known else None

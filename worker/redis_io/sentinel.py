"""Parses URLs of a Redis behind sentinels.

redis+sentinel:// or rediss+sentinel://[user:password@]host:port[,host:port…]/service[/db]
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Addresses of sentinels, the name of the service, and options for all connections."""

    sentinels: tuple[tuple[str, int], ...]
    service: str
    options: dict[str, Any]


def sentinel_url(url: str) -> SentinelUrl | None:
    """Parse a sentinel URL; None if the URL has another scheme.

    Credentials and TLS apply to master and sentinels. The query may hold further options, such as
    `?sentinel_password=…&ssl_ca_certs=/ca.pem`.

    Raises:
        ValueError: the URL names no service, or a port is not a number.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis+sentinel", "rediss+sentinel"):
        return None
    service, _, db = parts.path.strip("/").partition("/")
    if not service or (db and not db.isdecimal()):
        raise ValueError("a sentinel URL ends in /SERVICE or /SERVICE/DB")
    login, _, hosts = parts.netloc.rpartition("@")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    user, _, password = login.partition(":")
    for name, value in (("username", user), ("password", password)):
        if value:
            options[name] = unquote(value)
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    sentinels = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":")
        if not name or not port.isdecimal() or int(port) > _MAX_PORT:
            raise ValueError("each sentinel of a sentinel URL is HOST:PORT")
        sentinels.append((name.strip("[]"), int(port)))
    return SentinelUrl(tuple(sentinels), service, options | {"db": int(db or 0)})


def connection_options(url: SentinelUrl) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options for connections to the sentinels, and for those to the master."""
    own = {
        name.removeprefix("sentinel_"): value
        for name, value in url.options.items()
        if name.startswith("sentinel_")
    }
    shared = {k: v for k, v in url.options.items() if not k.startswith("sentinel_")}
    tls = {k: v for k, v in shared.items() if k.startswith("ssl")}
    return {**tls, **own}, shared

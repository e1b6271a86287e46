"""Decides which webhook URLs are allowed: https, a public address, no credentials in the URL."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx2

from worker.setting_values import IPNetwork, webhook_networks
from worker.settings import Settings

MAX_URL = 2000

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> addresses; raises OSError or UnicodeError if there are none."""

_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")

# Special networks that some Python versions count as global: protocol assignments, 6to4 relays.
_SPECIAL_V4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))

# Only global unicast IPv6 is allowed, which already excludes IPv4-mapped, -compatible and NAT64
# addresses, site-local and unique local ones. The list excludes special networks within it:
# protocol assignments (with Teredo and ORCHID), 6to4 and two documentation networks.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)


class UrlRejected(Exception):
    """The URL is not allowed or cannot be resolved; `code` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What the operator allows in addition to https to public addresses."""

    allow_http: bool = False
    networks: tuple[IPNetwork, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> "UrlPolicy":
        """The policy of the settings."""
        return cls(settings.webhook_allow_http, webhook_networks(settings.webhook_networks))


def is_public_address(address: IPAddress) -> bool:
    """Whether an address is a public unicast address."""
    if isinstance(address, ipaddress.IPv4Address):
        is_special = address.is_multicast or any(address in network for network in _SPECIAL_V4)
        return address.is_global and not is_special
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


def is_allowed(address: IPAddress, policy: UrlPolicy) -> bool:
    """Whether the policy allows this address."""
    return is_public_address(address) or any(address in network for network in policy.networks)


def url_problem(url: str, policy: UrlPolicy) -> str | None:
    """Why a URL is not allowed, or None; without resolving its name."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError):
        return "not a URL"
    schemes = ("https", "http") if policy.allow_http else ("https",)
    if parsed.scheme not in schemes:
        return f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if parsed.userinfo:
        return "no user name and password in the URL"
    host = host_of(parsed)
    address = _literal_address(host.rstrip("."))  # a trailing dot does not change the target
    if address is None and not _HOST.fullmatch(host):
        return "not a host name"
    if not 0 < port_of(parsed) < 65_536:
        return "not a port"
    is_local = host.rstrip(".").lower().rpartition(".")[2] == "localhost"
    address = ipaddress.IPv4Address("127.0.0.1") if is_local else address
    if address is not None and not is_allowed(address, policy):
        return "not a public address"
    return None


def host_of(url: httpx2.URL) -> str:
    """The host in ASCII, without the brackets of an IPv6 address."""
    return url.raw_host.decode("ascii")


def port_of(url: httpx2.URL) -> int:
    """The port of the URL, or the default port of its scheme."""
    return (443 if url.scheme == "https" else 80) if url.port is None else url.port


def _literal_address(host: str) -> IPAddress | None:
    """The address in `host`, in any form that resolvers accept (127.1, 0x7f000001), or None."""
    try:
        return _unmapped(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _unmapped(address: IPAddress) -> IPAddress:
    """The IPv4 address of an IPv4-mapped IPv6 address; others unchanged."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


async def resolve(host: str, port: int) -> Sequence[str]:
    """Resolve with the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


async def addresses_of(url: httpx2.URL, policy: UrlPolicy, resolve: Resolve) -> list[IPAddress]:
    """Resolve the host of a URL once; all its addresses must be allowed.

    Raises:
        UrlRejected: `unresolved`, or `blocked_address` if any address is not allowed.
    """
    try:
        found = await resolve(host_of(url), port_of(url))
        addresses = list(dict.fromkeys(_unmapped(ipaddress.ip_address(text)) for text in found))
    except (OSError, UnicodeError, ValueError) as exc:
        raise UrlRejected("unresolved") from exc
    if not addresses:
        raise UrlRejected("unresolved")
    if not all(is_allowed(address, policy) for address in addresses):
        raise UrlRejected("blocked_address")
    return addresses

"""Where webhooks may go: https, a public address, no credentials in the URL.

A name is resolved once, all its addresses are checked, and the connection goes to one of those.
Knows neither jobs nor what is sent.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx2

from worker.settings import IPNetwork, Settings, webhook_networks

MAX_URL = 2000

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> addresses; OSError or UnicodeError where there are none."""

_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")

# What Python's `is_global` lets through, or lets through in some of its versions: protocol
# assignments and the relays of 6to4.
_SPECIAL_V4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))

# Global unicast is the only part of IPv6 that is let through, so that addresses which stand for
# IPv4 ones (mapped, compatible, NAT64), site-local and unique local ones need no list. Within it
# lie protocol assignments with Teredo and ORCHID, 6to4, and two networks for documentation.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)


class UrlRefused(Exception):
    """A webhook may not go there, or there is no such place; `code` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What the operator allows beyond https to public addresses."""

    allow_http: bool = False
    networks: tuple[IPNetwork, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "UrlPolicy":
        """The rules in the settings."""
        return cls(settings.webhook_allow_http, webhook_networks(settings.webhook_networks))


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the internet's, for a single receiver."""
    if isinstance(address, ipaddress.IPv4Address):
        is_special = address.is_multicast or any(address in network for network in _SPECIAL_V4)
        return address.is_global and not is_special
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


def is_allowed(address: IPAddress, rules: UrlPolicy) -> bool:
    """Whether a webhook may be sent to this address."""
    return is_public(address) or any(address in network for network in rules.networks)


def url_problem(url: str, rules: UrlPolicy) -> str | None:
    """Why a webhook cannot go to a URL, as far as that is seen without asking for its name."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError):
        return "not a URL"
    schemes = ("https", "http") if rules.allow_http else ("https",)
    if parsed.scheme not in schemes:
        return f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if parsed.userinfo:
        return "no user name and password in the URL"
    host = host_of(parsed)
    number = _number(host.rstrip("."))  # a dot at the end changes nothing of where it leads
    if number is None and not _HOST.fullmatch(host):
        return "not a host name"
    if not 0 < port_of(parsed) < 65_536:
        return "not a port"
    is_local = host.rstrip(".").lower().rpartition(".")[2] == "localhost"
    number = ipaddress.IPv4Address("127.0.0.1") if is_local else number
    if number is not None and not is_allowed(number, rules):
        return "not a public address"
    return None


def host_of(url: httpx2.URL) -> str:
    """The host in ASCII, without the brackets of an IPv6 address."""
    return url.raw_host.decode("ascii")


def port_of(url: httpx2.URL) -> int:
    """The port, as given or by the scheme."""
    return (443 if url.scheme == "https" else 80) if url.port is None else url.port


def _number(host: str) -> IPAddress | None:
    """The address that a host is, in any of the forms that resolvers know (127.1, 0x7f000001)."""
    try:
        return _plain(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4 address that is written as an IPv6 one, as itself."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


async def resolve(host: str, port: int) -> Sequence[str]:
    """What this machine's resolver says."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


async def addresses_of(url: httpx2.URL, rules: UrlPolicy, resolve: Resolve) -> list[IPAddress]:
    """The addresses of a URL's host, every one of them allowed; asked for once.

    Raises:
        TargetRefused: `unresolved`, or `blocked_address` if even one is not allowed.
    """
    try:
        found = await resolve(host_of(url), port_of(url))
        addresses = list(dict.fromkeys(_plain(ipaddress.ip_address(text)) for text in found))
    except (OSError, UnicodeError, ValueError) as exc:
        raise UrlRefused("unresolved") from exc
    if not addresses:
        raise UrlRefused("unresolved")
    if not all(is_allowed(address, rules) for address in addresses):
        raise UrlRefused("blocked_address")
    return addresses

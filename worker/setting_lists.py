"""Settings that are lists: several values in one text."""

import ipaddress
from collections.abc import Sequence

from pydantic import SecretStr

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_commas(value: str) -> tuple[str, ...]:
    """The items of a comma-separated setting."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def webhook_secrets(value: SecretStr | None) -> Sequence[str]:
    """The secrets of the setting; empty if it is unset."""
    return value.get_secret_value().split() if value else ()


def webhook_networks(value: str) -> tuple[IPNetwork, ...]:
    """The networks of the setting; ValueError if one is invalid."""
    return tuple(ipaddress.ip_network(part) for part in split_commas(value))


def webhook_delays(value: str) -> tuple[float, ...]:
    """The delays of the setting in seconds; ValueError if one is not a number."""
    return tuple(float(part) for part in split_commas(value))

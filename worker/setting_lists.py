"""Settings that are lists: several values in one text."""

import base64
import ipaddress
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, SecretStr

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_ORIGIN = re.compile(r"https?://(?:[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?")
_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\]")
_MAX_RETRY_SECONDS = 6 * 86_400
"""The outbox keeps deliveries for seven days."""


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


# -- the settings, checked -------------------------------------------------------------------------


def _check_origins(value: str) -> str:
    for origin in split_commas(value):
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is not an origin such as https://art.example")
    return value


def _check_hosts(value: str) -> str:
    for host in split_commas(value):
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not a host such as art.example; leave the port out")
    return value


def _check_webhook_secrets(value: SecretStr) -> SecretStr:
    for secret in webhook_secrets(value):
        try:
            size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
        except ValueError:
            size = 0
        if not secret.startswith("whsec_") or not 24 <= size <= 64:
            raise ValueError("each secret must be whsec_ and base64 of 24 to 64 bytes")
    return value


def _check_webhook_networks(value: str) -> str:
    webhook_networks(value)
    return value


def _check_webhook_delays(value: str) -> str:
    delays = webhook_delays(value)
    if min(delays, default=0) < 0 or sum(delays) > _MAX_RETRY_SECONDS:
        raise ValueError(f"delays must be at least 0 and in total at most {_MAX_RETRY_SECONDS}")
    return value


Origins = Annotated[str, AfterValidator(_check_origins)]
Hosts = Annotated[str, AfterValidator(_check_hosts)]
WebhookSecrets = Annotated[SecretStr, AfterValidator(_check_webhook_secrets)]
WebhookNetworks = Annotated[str, AfterValidator(_check_webhook_networks)]
WebhookDelays = Annotated[str, AfterValidator(_check_webhook_delays)]

"""Types of settings: numbers with upper limits, URLs, secrets, and lists in one text.

Their errors say what a value must be and never show it: it may be, or hold, a secret.
"""

import base64
import ipaddress
import math
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAMES = r"[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\]"
_ORIGIN = re.compile(rf"https?://(?:{_NAMES})(?::\d{{1,5}})?")
_HOST = re.compile(_NAMES)
_URL = re.compile(
    r"https?://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/[a-z0-9._~%!$&'()*+,;=:/-]*)?",
    re.IGNORECASE | re.ASCII,
)
_ADDRESS = re.compile(r"(?:(?:[a-z0-9_.:%-]*|\[[a-z0-9:.%]+\]):)?(?P<port>[0-9]{1,5})", re.I | re.A)
_STORE = re.compile(r"local|s3://[a-z0-9][a-z0-9.-]+(?:/[A-Za-z0-9._-]+)*/?")
_DEVICE = re.compile(r"auto|cpu|cuda(?::[0-9]{1,3})?")
_MAX_PORT = 65_535
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
    return tuple(float(part) for part in value.split(",")) if split_commas(value) else ()


# -- the settings, checked -------------------------------------------------------------------------


def check_url(value: str) -> str:
    """A URL that needs no escapes, so that no client of it stumbles or takes it differently."""
    found = _URL.fullmatch(value)
    if not found or int(found["port"] or 0) > _MAX_PORT:
        raise ValueError(
            "must be like https://art.example or http://127.0.0.1:8000/path: "
            "without user, password, spaces, ? and #"
        )
    return value


def _check_address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if not found or int(found["port"]) > _MAX_PORT:
        raise ValueError("must be host:port, such as 127.0.0.1:8000")
    return value


def _check_store(value: str) -> str:
    if not _STORE.fullmatch(value):
        raise ValueError("must be local or s3://bucket/prefix")
    return value


def _check_device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise ValueError("must be auto, cpu, cuda or a GPU's number, such as cuda:1")
    return value


def check_region(value: str) -> str:
    """Check the region of a bucket, which may become a part of its host."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError("must be like eu-central-1: letters without accents, digits, - and _")
    return value


def check_key(value: SecretStr) -> SecretStr:
    """Check a key of a bucket, which becomes a part of a header."""
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("has spaces or characters that are not ASCII")
    return value


def _check_model_names(value: str) -> str:
    """They are sent in JSON."""
    if not value.isprintable():
        raise ValueError("has characters that cannot be shown")
    return value


def _check_entries(value: str, entry: re.Pattern[str], kind: str, form: str) -> str:
    """Check a list; the message tells an entry that is wrong by its number."""
    for number, item in enumerate(split_commas(value), 1):
        if not entry.fullmatch(item):
            raise ValueError(
                f"has an entry that is not {kind}, number {number}: {kind} is like {form}"
            )
    return value


def _check_origins(value: str) -> str:
    form = "https://art.example:8000, in small letters, without a path or *"
    return _check_entries(value, _ORIGIN, "an origin", form)


def _check_hosts(value: str) -> str:
    form = "art.example, in small letters, without a port"
    return _check_entries(value, _HOST, "a host", form)


def _check_webhook_secrets(value: SecretStr) -> SecretStr:
    for secret in webhook_secrets(value):
        try:
            size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
        except ValueError:
            size = 0
        if not secret.startswith("whsec_") or not 24 <= size <= 64:
            raise ValueError("must be whsec_ and base64 of 24 to 64 bytes, or several of these")
    return value


def _check_webhook_networks(value: str) -> str:
    for number, network in enumerate(split_commas(value), 1):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(
                f"has an entry that is not a network, number {number}: a network is like "
                "10.1.0.0/16, with zeros after its own bits"
            ) from None
    return value


def _check_webhook_delays(value: str) -> str:
    try:
        delays = webhook_delays(value)
    except ValueError:
        delays = (math.nan,)
    if not all(delay >= 0 for delay in delays) or sum(delays) > _MAX_RETRY_SECONDS:
        raise ValueError(
            "must be numbers with commas between them, each at least 0, in total at most "
            f"{_MAX_RETRY_SECONDS}"
        )
    return value


Seconds = Annotated[float, Field(le=86_400)]
KeptSeconds = Annotated[int, Field(le=315_360_000)]
Count = Annotated[int, Field(le=1_000_000)]
Bytes = Annotated[int, Field(le=1_000_000_000_000)]
Url = Annotated[str, AfterValidator(check_url)]
Address = Annotated[str, AfterValidator(_check_address)]
Store = Annotated[str, AfterValidator(_check_store)]
Device = Annotated[str, AfterValidator(_check_device)]
Region = Annotated[str, AfterValidator(check_region)]
BucketKey = Annotated[SecretStr, AfterValidator(check_key)]
ModelNames = Annotated[str, AfterValidator(_check_model_names)]
Origins = Annotated[str, AfterValidator(_check_origins)]
Hosts = Annotated[str, AfterValidator(_check_hosts)]
WebhookSecrets = Annotated[SecretStr, AfterValidator(_check_webhook_secrets)]
WebhookNetworks = Annotated[str, AfterValidator(_check_webhook_networks)]
WebhookDelays = Annotated[str, AfterValidator(_check_webhook_delays)]

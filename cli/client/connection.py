"""Sends requests to the service and turns problem responses (RFC 9457) into errors."""

import re
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from cli.client.errors import ClientError, NotFound, Refused, ServiceAway, WrongUsage
from cli.output import read_settings

_READ_SECONDS = 5.0
"""Read timeout. A silent event stream is opened again after it, which checks the time limit."""


def service_url(address: str) -> str:
    """The URL of a service from what a person writes, such as `localhost:8000`.

    Without a scheme, https is assumed for a host with a domain, because the API key is sent there,
    and http for all others: localhost, machines of the own network, addresses.

    Raises:
        WrongUsage: it is not an address of a web server.
    """
    named = repr(address) if "@" not in address else "it"  # a password is before an @
    wrong = f"{named} is not an address such as http://127.0.0.1:8000"
    text = address.strip()
    if "://" not in text:
        text = f"{_scheme(text)}://{text}"
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        httpx2.URL(text)
    except (ValueError, httpx2.InvalidURL) as exc:
        raise WrongUsage(wrong) from exc
    is_torn = re.search(r"\s", text) or parts.netloc.endswith(":")
    if not is_usable or is_torn or parts.query or parts.fragment:
        raise WrongUsage(wrong)
    return text.rstrip("/")


def shown(url: httpx2.URL | str) -> str:
    """A URL as messages show it: without user and password."""
    return re.sub("//[^/@]*@", "//", str(url))


def _scheme(address: str) -> str:
    host = re.split(r"[:/]", address.removeprefix("["))[0]
    is_address = "[" in address or host.replace(".", "").isdigit()
    return "https" if "." in host and not is_address else "http"


def open_client(url: str) -> httpx2.Client:
    """A client for the service at `url`, with the API key of the settings.

    Connections to this machine bypass proxies.

    Raises:
        WrongUsage: `url` is not a URL.
        ClientError: the key, or a variable for proxies or certificates, cannot be used.
    """
    key = _api_key()
    headers = {"Authorization": f"Bearer {key}"} if key else None
    timeout = httpx2.Timeout(10, read=_READ_SECONDS)
    try:
        trust_env = not _is_local(httpx2.URL(url))
        return httpx2.Client(base_url=url, headers=headers, timeout=timeout, trust_env=trust_env)
    except httpx2.InvalidURL as exc:
        raise WrongUsage(f"{shown(url)}: {exc}") from exc
    except (ImportError, OSError, ValueError) as exc:
        variables = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        raise ClientError(f"{shown(url)} cannot be called: {exc}; look at {variables}") from exc


def _api_key() -> str | None:
    """The key of the settings; files that hold one often end their lines with more than it."""
    key = read_settings().api_key
    text = key.get_secret_value().strip() if key else ""
    if not (text.isascii() and text.isprintable()):
        raise ClientError("KIRAZURI_API_KEY has characters that no key has; copy it again")
    return text or None


def _is_local(url: httpx2.URL) -> bool:
    return url.host in ("localhost", "127.0.0.1", "::1")


def send(client: httpx2.Client, method: str, url: str, **options: Any) -> httpx2.Response:
    """Send a request; `options` are those of `httpx2.Client.request`.

    Raises:
        ServiceAway: nothing answers.
        WrongUsage: an argument is not UTF-8 text.
        ClientError: the response is an error.
    """
    try:
        response = client.request(method, url, **options)
    except httpx2.TransportError as exc:
        advice = _advice(client.base_url, str(exc))
        raise ServiceAway(f"nothing answers at {shown(client.base_url)} ({exc}); {advice}") from exc
    except UnicodeEncodeError as exc:
        raise WrongUsage("an argument is not UTF-8 text") from exc
    raise_for_problem(response)
    return response


def _advice(url: httpx2.URL, reason: str) -> str:
    """What to do if nothing answers there."""
    if "WRONG_VERSION_NUMBER" in reason:
        return "what listens there speaks no TLS: write http:// instead of https://"
    proxies = getproxies()
    proxy = next((kind for kind in (url.scheme, "all") if proxies.get(kind)), None)
    if proxy and not _is_local(url) and not proxy_bypass(url.host):
        asked = f"it was asked through the proxy of {proxy.upper()}_PROXY"
        return f"{asked}; with NO_PROXY={url.host} it is asked directly"
    return "start the service with `kirazuri up`, or name another with --url or KIRAZURI_URL"


def send_for_json(client: httpx2.Client, method: str, url: str, **options: Any) -> Any:
    """Send a request and parse the response.

    Raises:
        ClientError: as `send`, or the response is not JSON.
    """
    return _parse(send(client, method, url, **options))


def raise_for_problem(response: httpx2.Response) -> None:
    """Raise a `ClientError` that names every wrong field unless the response is a success."""
    if response.is_success:
        return
    response.read()
    if response.has_redirect_location:
        target = response.headers["Location"]
        raise ServiceAway(f"{shown(response.url)} redirects to {target}; is the service there?")
    problem = _parse(response)
    if not isinstance(problem, dict) or "title" not in problem:
        raise ServiceAway(
            f"{shown(response.url)} answered {response.status_code}; is it this service?"
        )
    fields = (
        f"\n  {error['pointer'].strip('/') or 'request'}: {error['detail']}"
        for error in problem.get("errors", [])
    )
    hint = "\n  set it in KIRAZURI_API_KEY" if response.status_code == 401 else ""
    message = f"{problem['title']}: {problem.get('detail', '')}{''.join(fields)}{hint}"
    if response.status_code in (404, 410):
        raise NotFound(message)
    if response.status_code == 429 or response.is_server_error:
        raise ServiceAway(message, problem, _retry_after(response))
    raise Refused(message)


def _retry_after(response: httpx2.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _parse(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError as exc:
        answered = f"{shown(response.url)} answered {response.status_code} without JSON"
        raise ServiceAway(f"{answered}; is it this service?") from exc

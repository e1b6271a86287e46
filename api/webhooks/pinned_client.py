"""Posts webhooks only to addresses that the URL policy allows.

The client resolves a name once, checks its addresses, and connects to one of those: a name server
cannot change its answer after the check (DNS rebinding).
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from api.version import package_version
from api.webhooks import url_policy as url_policy
from api.webhooks.url_policy import IPAddress, Resolve, UrlPolicy, UrlRejected

_CONNECT_SECONDS = 5.0


_ADDRESSES_TRIED = 3


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """Result of one attempt: the HTTP status, and why the message is not delivered."""

    status: int | None
    error: str | None


class PinnedClient:
    """An HTTP client that connects only to checked addresses."""

    def __init__(
        self,
        policy: UrlPolicy,
        *,
        seconds: float,
        resolve: Resolve = url_policy.resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._seconds = seconds
        self._resolve = resolve
        # No keep-alive: the pool identifies connections by address, which two names may share.
        # `trust_env=False`: no proxies or credentials from the environment.
        self._client = httpx2.AsyncClient(
            verify=tls or True,
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=httpx2.Timeout(seconds, connect=min(_CONNECT_SECONDS, seconds)),
            headers={
                "User-Agent": f"kirazuri-server/{package_version()}",
                "Accept-Encoding": "identity",
            },
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def post(self, url: str, body: str, headers: Mapping[str, str]) -> AttemptResult:
        """Make one attempt of at most `seconds`; never raises for failures of the receiver."""
        # Check again: the policy may have changed since the submission.
        if url_policy.url_problem(url, self._policy):
            return AttemptResult(None, "blocked_url")
        parsed = httpx2.URL(url)
        try:
            async with asyncio.timeout(self._seconds):
                addresses = await url_policy.addresses_of(parsed, self._policy, self._resolve)
                return await self._post_to_any(addresses, parsed, body, headers)
        except UrlRejected as exc:
            return AttemptResult(None, exc.code)
        except TimeoutError:
            return AttemptResult(None, "timeout")

    async def _post_to_any(
        self, addresses: list[IPAddress], url: httpx2.URL, body: str, headers: Mapping[str, str]
    ) -> AttemptResult:
        """Post to the first address that accepts a connection."""
        result = AttemptResult(None, "connection_failed")
        for address in addresses[:_ADDRESSES_TRIED]:
            try:
                return await self._post_to(address, url, body, headers)
            except httpx2.ConnectError as exc:
                result = AttemptResult(
                    None, "tls_failed" if _is_tls_error(exc) else "connection_failed"
                )
            except httpx2.ConnectTimeout:
                result = AttemptResult(None, "timeout")
            except httpx2.TimeoutException:
                return AttemptResult(None, "timeout")
            except httpx2.HTTPError:
                return AttemptResult(None, "connection_lost")
        return result

    async def _post_to(
        self, address: IPAddress, url: httpx2.URL, body: str, headers: Mapping[str, str]
    ) -> AttemptResult:
        """Post to one address; TLS and HTTP use the host name of the URL."""
        request = self._client.build_request(
            "POST",
            url.copy_with(host=str(address), fragment=None),
            content=body.encode(),
            headers={
                **headers,
                "Host": url.netloc.decode("ascii"),
                "Content-Type": "application/json",
            },
            extensions={"sni_hostname": url_policy.host_of(url)},
        )
        # Only the status matters; the body is not read, whatever its size.
        response = await self._client.send(request, stream=True)
        await response.aclose()
        return _result_of(response.status_code)


def _result_of(status: int) -> AttemptResult:
    if 200 <= status < 300:
        return AttemptResult(status, None)
    return AttemptResult(status, "redirect" if 300 <= status < 400 else "bad_status")


def _is_tls_error(exc: BaseException) -> bool:
    """Whether TLS is the reason of a failed connection."""
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False

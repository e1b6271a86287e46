"""Knows the headers that reverse proxies, tunnels and content networks add to what they forward."""

from collections.abc import Iterable

_PREFIXES = (
    *("forwarded", "x-forwarded", "x-original-", "x-real-", "x-client-ip", "true-client-"),
    *("cf-", "cdn-", "cloudfront-", "x-amz-cf-", "x-amzn-", "fastly-", "akamai-", "x-akamai-"),
    *(
        "x-azure-",
        "x-arr-",
        "disguised-host",
        "was-default-hostname",
        "x-appengine-",
        "x-goog-iap-",
    ),
    *("x-cloud-trace-", "x-envoy-", "fly-", "x-vercel-", "x-railway-", "rndr-", "x-render-"),
    *("tailscale-", "ngrok-", "x-pomerium-", "x-auth-request-", "x-sucuri-", "incap-"),
    *("x-varnish", "x-nginx-", "x-traefik-", "x-haproxy-", "x-proxy", "ssl-client-", "x-ssl-"),
)
_NAMES = frozenset(
    {
        *("via", "client-ip", "x-cluster-client-ip", "proxy-client-ip", "wl-proxy-client-ip"),
        *("x-remote-ip", "x-remote-addr", "x-remote-user", "remote-user", "x-webauth-user"),
        *("x-host", "x-scheme", "x-url-scheme", "front-end-https", "max-forwards"),
        *("surrogate-capability", "x-request-start", "x-queue-start"),
    }
)


def shows_proxy(names: Iterable[str]) -> bool:
    """Whether one of these header names, in small letters, shows that a proxy forwarded a request.

    A proxy that adds no header cannot be noticed.
    """
    return any(name in _NAMES or name.startswith(_PREFIXES) for name in names)

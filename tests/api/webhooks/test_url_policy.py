"""Which webhook URLs and addresses the policy allows."""

import ipaddress
from collections.abc import Sequence

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.webhooks.url_policy import (
    UrlPolicy,
    UrlRejected,
    addresses_of,
    is_public_address,
    resolve,
    url_problem,
)

STRICT = UrlPolicy()
LOCAL = UrlPolicy(
    allow_http=True,
    networks=(ipaddress.ip_network("127.0.0.1/32"), ipaddress.ip_network("fd00::/8")),
)


NOT_PUBLIC = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.9", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:2::1",
    "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "3fff::1",
    "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1",
    "4000::1",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450::1",
)  # fmt: skip


def test_public_addresses() -> None:
    found = {
        address: is_public_address(ipaddress.ip_address(address)) for address in NOT_PUBLIC + PUBLIC
    }
    assert found == dict.fromkeys(NOT_PUBLIC, False) | dict.fromkeys(PUBLIC, True)


REJECTED = {
    "http://example.org/": "it must begin with https://",
    "ftp://example.org/": "it must begin with https://",
    "file:///etc/passwd": "it must begin with https://",
    "gopher://example.org/": "it must begin with https://",
    "//example.org/": "it must begin with https://",
    "example.org": "it must begin with https://",
    "": "it must begin with https://",
    "https://": "not a host name",
    "https:///path": "not a host name",
    "https://a b/": "not a host name",
    "https://a..b/": "not a host name",
    "https://.a/": "not a host name",
    "https://a%2eb/": "not a host name",
    "https://[fe80::1%25eth0]/": "not a public address",
    "https://example.org:0/": "not a port",
    "https://example.org:99999/": "not a port",
    "https://example.org:x/": "not a URL",
    "https://exam\nple.org/": "not a URL",
    "https://user:secret@example.org/": "no user name and password in the URL",
    "https://example.org\\@127.0.0.1/": "no user name and password in the URL",
    "https://localhost/": "not a public address",
    "https://LOCALHOST./": "not a public address",
    "https://db.localhost/": "not a public address",
    "https://127.0.0.1/": "not a public address",
    "https://127.0.0.1./": "not a public address",
    "https://127.1/": "not a public address",
    "https://2130706433/": "not a public address",
    "https://0x7f000001/": "not a public address",
    "https://0x7f.1/": "not a public address",
    "https://0177.0.0.1/": "not a URL",
    "https://0/": "not a public address",
    "https://10.0.0.1/": "not a public address",
    "https://169.254.169.254/latest/meta-data/": "not a public address",
    "https://[::1]/": "not a public address",
    "https://[::]/": "not a public address",
    "https://[::ffff:127.0.0.1]/": "not a public address",
    "https://[::ffff:7f00:1]/": "not a public address",
    "https://[64:ff9b::7f00:1]/": "not a public address",
    "https://[2002:7f00:1::]/": "not a public address",
    "https://[fe80::1]/": "not a public address",
    "https://[fd00::1]/": "not a public address",
}


def test_rejected_urls() -> None:
    assert {url: url_problem(url, STRICT) for url in REJECTED} == REJECTED


def test_allowed_urls() -> None:
    for url in (
        "https://example.org",
        "https://example.org:8443/hook?token=secret#part",
        "https://bücher.example/",
        "https://a_b.example/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
        "https://[::ffff:1.1.1.1]/",
    ):
        assert url_problem(url, STRICT) is None, url


@given(
    st.one_of(
        st.text(),
        st.text().map(lambda rest: f"https://{rest}"),
        st.from_regex(r"https://[\[\]0-9a-fx.:%@\\-]{0,30}(/.*)?"),
    )
)
def test_any_text_gets_a_verdict(url: str) -> None:
    problem = url_problem(url, STRICT)
    assert problem is None or problem


def test_settings_of_the_operator() -> None:
    assert url_problem("http://127.0.0.1:8080/", LOCAL) is None
    assert url_problem("http://localhost/", LOCAL) is None
    assert url_problem("https://[fd00::1]/", LOCAL) is None
    assert url_problem("http://127.0.0.2/", LOCAL) == "not a public address"
    assert url_problem("http://169.254.169.254/", LOCAL) == "not a public address"


async def test_local_addresses_of_the_system_resolver_are_rejected() -> None:
    for url in (
        "https://localhost/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://[::ffff:127.0.0.1]/",
        "https://0/",
    ):
        with pytest.raises(UrlRejected, match="blocked_address"):
            await addresses_of(httpx2.URL(url), STRICT, resolve)


async def test_every_address_of_a_name_must_be_allowed() -> None:
    cases: list[tuple[list[str], str]] = [
        (["10.0.0.1"], "blocked_address"),
        (["1.1.1.1", "10.0.0.1"], "blocked_address"),
        (["2606:4700::1111", "::1"], "blocked_address"),
        (["fe80::1%2"], "blocked_address"),
        ([], "unresolved"),
        (["nonsense"], "unresolved"),
    ]
    for answer, code in cases:

        async def resolve_so(host: str, port: int, answer: list[str] = answer) -> Sequence[str]:
            assert (host, port) == ("example.org", 443)
            return answer

        with pytest.raises(UrlRejected, match=code):
            await addresses_of(httpx2.URL("https://example.org/"), STRICT, resolve_so)


@pytest.mark.parametrize("failure", [OSError("no such name"), UnicodeError("label too long")])
async def test_unresolvable_name(failure: Exception) -> None:
    async def failing(host: str, port: int) -> Sequence[str]:
        raise failure

    with pytest.raises(UrlRejected, match="unresolved"):
        await addresses_of(httpx2.URL("https://example.org/"), STRICT, failing)


async def test_too_long_name() -> None:
    url = httpx2.URL(f"https://{'a' * 64}.example/")
    with pytest.raises(UrlRejected, match="unresolved"):
        await addresses_of(url, STRICT, resolve)


async def test_addresses_keep_their_order_without_duplicates() -> None:
    async def twice(host: str, port: int) -> Sequence[str]:
        return ["2606:4700::1111", "1.1.1.1", "1.1.1.1", "::ffff:1.1.1.1"]

    found = await addresses_of(httpx2.URL("https://example.org/"), STRICT, twice)
    assert [str(address) for address in found] == ["2606:4700::1111", "1.1.1.1"]

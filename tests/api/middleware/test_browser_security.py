"""Security headers, CORS, and the refusal of cross-origin requests and unknown hosts."""

import base64
import hashlib
import itertools
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from tests.support.api_calls import PROMPT, read_problem
from tests.support.api_server import ApiServer
from tests.support.cases import check_all
from tests.support.manual_worker import ManualWorker
from worker.settings import Settings

ART = "https://art.example"
NO_CONTENT = "default-src 'none'; frame-ancestors 'none'"


def assert_security_headers(answer: httpx2.Response) -> None:
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cross-origin-resource-policy"] in ("same-origin", "cross-origin")
    assert "server" not in headers
    assert "x-powered-by" not in headers


PATHS = (
    "/", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css", "/capabilities",
    "/livez", "/readyz", "/metrics", "/problems/internal", "/jobs/nothing", "/nothing",
    "/images/nothing.png",
)  # fmt: skip


def test_every_response_has_the_headers(client: httpx2.Client) -> None:
    def check(path: str) -> None:
        answer = client.get(path)
        assert_security_headers(answer)
        if path not in ("/", "/docs"):
            assert answer.headers["content-security-policy"] == NO_CONTENT
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"

    check_all(check, PATHS)


def test_images_can_be_embedded_but_run_no_scripts(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = client.post("/generate", json={"prompt": PROMPT}).json()["id"]
    worker.claim(job_id)
    (image,) = worker.finish(job_id, b"<script>alert(1)</script>")
    answer = client.get(image.url)
    assert_security_headers(answer)
    assert answer.headers["content-type"] == "image/png"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


def test_docs_page_allows_only_its_own_scripts(client: httpx2.Client) -> None:
    answer = client.get("/docs")
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    allowed = policy["script-src"].split()
    assert "'unsafe-inline'" not in allowed
    assert "'unsafe-eval'" not in allowed
    inline = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    assert inline
    for script in inline:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in allowed
    assert set(re.findall(r'(?:src|href)="(.)', answer.text)) == {"/"}
    assert not re.search(r"\son[a-z]+=", answer.text)


def preflight(client: httpx2.Client, origin: str, method: str = "POST") -> httpx2.Response:
    """The CORS preflight of a browser for a page of `origin`."""
    return client.options(
        "/generate",
        headers={
            "origin": origin,
            "access-control-request-method": method,
            "access-control-request-headers": "authorization,idempotency-key,x-stainless-lang",
        },
    )


def test_no_origin_is_allowed_by_default(client: httpx2.Client) -> None:
    preflight_answer = preflight(client, ART)
    assert preflight_answer.status_code == 405
    answer = client.post("/generate", json={"prompt": PROMPT}, headers={"origin": ART})
    for headers in (preflight_answer.headers, answer.headers, client.get("/livez").headers):
        assert not [name for name in headers if name.startswith("access-control-")]


@pytest.fixture(scope="module")
def open_server(settings: Settings) -> Iterator[ApiServer]:
    named = {"cors_origins": f"{ART}, http://localhost:3000", "allowed_hosts": "127.0.0.1"}
    with ApiServer(settings.model_copy(update=named)) as running:
        yield running


@pytest.fixture
def open_client(open_server: ApiServer, redis_url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=open_server.url, timeout=60) as opened:
        yield opened


def test_allowed_origin(open_client: httpx2.Client) -> None:
    preflight_answer = preflight(open_client, ART)
    assert preflight_answer.status_code == 200
    assert preflight_answer.headers["access-control-allow-origin"] == ART
    assert "x-stainless-lang" in preflight_answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight_answer.headers
    site = {"origin": ART, "sec-fetch-site": "cross-site"}
    answer = open_client.post("/generate", json={"prompt": PROMPT}, headers=site)
    assert answer.status_code == 202
    assert answer.headers["access-control-allow-origin"] == ART
    assert "Location" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]


def test_allowed_origin_can_read_errors(open_client: httpx2.Client) -> None:
    answer = open_client.get("/jobs/nothing", headers={"origin": ART})
    assert read_problem(answer)["code"] == "job_not_found"
    assert answer.headers["access-control-allow-origin"] == ART


def test_other_origins_are_not_allowed(open_client: httpx2.Client) -> None:
    for origin in (
        "https://evil.example", "https://art.example.evil.example", "http://art.example",
        "https://art.example:8443", "https://xart.example", "null", "*",
    ):  # fmt: skip
        assert "access-control-allow-origin" not in preflight(open_client, origin).headers, origin
        answer = open_client.get("/livez", headers={"origin": origin})
        assert "access-control-allow-origin" not in answer.headers, origin


def test_cross_origin_requests_change_nothing(
    client: httpx2.Client, open_client: httpx2.Client
) -> None:
    def check(caller: httpx2.Client, operation: tuple[str, str], site: str, origin: str) -> None:
        headers = {"sec-fetch-site": site} | ({"origin": origin} if origin else {})
        answer = caller.request(*operation, headers=headers)
        assert answer.status_code == 403
        assert read_problem(answer)["code"] == "foreign_page"
        assert_security_headers(answer)

    operations = (
        ("POST", "/generate"),
        ("DELETE", "/jobs/nothing"),
        ("POST", "/jobs/nothing/replay"),
        ("GET", "/jobs/nothing/events?cancel_on_disconnect=true"),
        ("GET", "/jobs/nothing/events?x=1&cancel%5Fon_disconnect=1"),
    )
    sites, origins = ("cross-site", "same-site"), ("https://evil.example", "null", "")
    check_all(check, itertools.product((client, open_client), operations, sites, origins))


FOREIGN_ORIGINS = (
    "null", "https://evil.example", "http://localhost", "http://127.0.0.1:1", "http://127.0.0.1",
    "ftp://{host}", "http://{host}.evil.example", "http://evil.example/{host}", "file://",
    "http://evil.example@", "http://[::1", "http://127.0.0.1:port", "",
)  # fmt: skip


def test_foreign_pages_in_browsers_that_do_not_tell_the_site(
    public_client: httpx2.Client, client: httpx2.Client
) -> None:
    """Browsers send Sec-Fetch-Site only to https and to localhost; older ones never do."""

    def check(caller: httpx2.Client, operation: tuple[str, str, str], origin: str) -> None:
        method, path, media_type = operation
        named = origin.format(host=caller.base_url.netloc.decode())
        headers = {"origin": named, "content-type": media_type}
        answer = caller.request(method, path, content=b"prompt=1girl", headers=headers)
        assert answer.status_code == 403, answer.text
        assert "foreign_page" in answer.text or "KIRAZURI_CORS_ORIGINS" in answer.text

    operations = (
        ("POST", "/generate", "text/plain"),
        ("POST", "/v1/images/edits", "multipart/form-data; boundary=x"),
        ("POST", "/sdapi/v1/interrupt", "application/x-www-form-urlencoded"),
        ("POST", "/verify", "image/png"),
        ("DELETE", "/jobs/nothing", ""),
        ("GET", "/jobs/nothing/events?cancel_on_disconnect=on", ""),
    )
    check_all(check, itertools.product((client, public_client), operations, FOREIGN_ORIGINS))


def test_own_pages_in_browsers_that_do_not_tell_the_site(settings: Settings) -> None:
    named = {"public_url": "https://Art.example/api", "cors_origins": "http://pages.example"}
    named |= {"auth": "off"}
    with ApiServer(settings.model_copy(update=named)) as running:
        own = running.url.removeprefix("http://")
        for host, origin in (
            (own, f"http://{own}"),
            ("Art.local", "http://art.local"),
            ("art.local", "https://art.local"),  # a proxy has removed the TLS
            ("art.local:443", "https://art.local"),
            ("[::1]:8000", "http://[::1]:8000"),
            (own, "https://art.example"),
            (own, "http://pages.example"),
        ):
            headers = {"host": host, "origin": origin}
            url = f"{running.url}/generate?dry_run=true"
            answer = httpx2.post(url, json={"prompt": PROMPT}, headers=headers, timeout=60)
            assert answer.status_code == 200, (host, origin, answer.text)


def test_programs_send_no_origin(client: httpx2.Client) -> None:
    assert client.post("/generate?dry_run=true", json={"prompt": PROMPT}).status_code == 200


def test_own_pages_and_links_from_others_work(client: httpx2.Client) -> None:
    own = {"sec-fetch-site": "same-origin", "origin": str(client.base_url)}
    assert client.post("/generate", json={"prompt": PROMPT}, headers=own).status_code == 202
    assert client.get("/livez", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_unknown_hosts_are_refused(open_client: httpx2.Client) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[::1]:80", "a b"):
        answer = open_client.get("/capabilities", headers={"host": host})
        assert answer.status_code == 421, host
        assert read_problem(answer)["code"] == "wrong_host"


def test_probes_answer_whatever_the_host(open_server: ApiServer, redis_url: str) -> None:
    def check(method: str, path: str, host: str | None) -> None:
        version = "1.0" if host is None else "1.1"
        head = f"{method} {path} HTTP/{version}\r\n" + (f"Host: {host}\r\n" if host else "")
        port = int(open_server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
            status = int(connection.makefile("rb").readline().split()[1])
        assert status == (503 if path == "/readyz" else 200)  # there is no worker

    paths = ("/livez", "/readyz")
    hosts = ("10.1.2.3:8000", "[fd00::7]:8000", "api", "probe.svc.cluster.local", None)
    check_all(check, itertools.product(("GET", "HEAD"), paths, hosts))


def test_host_of_the_public_url_is_allowed(settings: Settings) -> None:
    named = {"allowed_hosts": "localhost", "public_url": "https://Art.example/api"}
    with ApiServer(settings.model_copy(update=named)) as running:
        answers = {
            host: httpx2.get(
                f"{running.url}/problems/internal", headers={"host": host}, timeout=60
            ).status_code
            for host in ("localhost:80", "LOCALHOST", "art.example", "art.example:443", "x.example")
        }
    assert list(answers.values()) == [200, 200, 200, 200, 421]


def test_invalid_settings() -> None:
    changes: list[dict[str, Any]] = [
        {"cors_origins": "*"},
        {"cors_origins": "art.example"},
        {"cors_origins": "https://art.example/"},
        {"cors_origins": "https://*.example"},
        {"cors_origins": "null"},
        {"allowed_hosts": "*"},
        {"allowed_hosts": "localhost:80"},
        {"allowed_hosts": "https://art.example"},
    ]
    for change in changes:
        with pytest.raises(ValidationError):
            Settings(_env_file=None, **change)

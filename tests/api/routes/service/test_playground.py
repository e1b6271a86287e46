"""`/` and the files of the page: caching, compression, what the page may load, and its size."""

import re
from typing import Any

import httpx2
import pytest

from api.routes.service.playground import content_security_policy, load_site
from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from tests.support.paths import ROOT
from worker.settings import Settings

FOLDER = ROOT / "api/playground"
MAX_BYTES = 100_000
MAX_LINES = 250


def links(page: str) -> set[str]:
    """Paths of all files that the page loads."""
    return {f"/{path}" for path in re.findall(r'(?:src|href)="(playground/[^"]+)"', page)}


def test_the_page_loads_its_own_files_only(client: httpx2.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "{root}" not in answer.text
    assert "://" not in re.sub(r'xmlns="[^"]+"', "", answer.text)
    on_disk = {p for p in FOLDER.rglob("*") if p.suffix in (".js", ".css", ".svg")}
    found = links(answer.text)
    assert {path.split("/", 3)[3] for path in found} == {
        path.relative_to(FOLDER).as_posix() for path in on_disk
    }
    for path in found:
        assert client.get(path).status_code == 200, path


def test_the_page_allows_no_inline_code_and_no_other_host(client: httpx2.Client) -> None:
    answer = client.get("/")
    policy = dict(
        part.partition(" ")[::2] for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["x-frame-options"] == "DENY"
    assert not re.search(r"\s(?:on[a-z]+|style)=|<style|<script>", answer.text)


@pytest.mark.parametrize(
    ("settings", "origins"),
    [
        ({"store": "s3://art"}, "https://*.amazonaws.com"),
        (
            {"store": "s3://art", "s3_endpoint": "http://s3:9000"},
            "http://s3:9000 http://*.s3:9000",
        ),
        (
            {
                "store": "s3://art",
                "s3_endpoint": "http://s3:9000",
                "s3_public_endpoint": "https://pictures.example",
            },
            "https://pictures.example https://*.pictures.example",
        ),
    ],
)
def test_images_may_come_from_the_bucket(settings: dict[str, Any], origins: str) -> None:
    policy = content_security_policy(Settings(_env_file=None, **settings))
    assert f"img-src 'self' data: blob: {origins};" in policy


def test_files_are_cached_for_ever_under_their_hash(client: httpx2.Client) -> None:
    page = client.get("/")
    assert page.headers["cache-control"] == "no-cache"
    again = client.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    path = f"/playground/{load_site().version}/app.js"
    script = client.get(path)
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert script.content == (FOLDER / "app.js").read_bytes()
    kept = client.get(path, headers={"if-none-match": f'"other", W/{script.headers["etag"]}'})
    assert kept.status_code == 304
    # The page of another version, during an update.
    assert client.get("/playground/older/app.js").headers["cache-control"] == "no-cache"


def test_files_are_compressed_if_the_client_accepts_it(client: httpx2.Client) -> None:
    plain = client.get("/", headers={"accept-encoding": "identity"})
    packed = client.get("/", headers={"accept-encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.text == plain.text
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])


def test_head_has_the_headers_and_no_body(client: httpx2.Client) -> None:
    for path in ("/", f"/playground/{load_site().version}/icon.svg"):
        head, full = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        names = ("etag", "content-type", "cache-control", "content-length")
        assert [head.headers[name] for name in names] == [full.headers[name] for name in names]


@pytest.mark.parametrize("path", ["app.css", "index.html", "../main.py", "service/types.d.ts", ""])
def test_other_paths_are_not_found(client: httpx2.Client, path: str) -> None:
    problem = read_problem(client.get(f"/playground/{load_site().version}/{path}"))
    assert problem["code"] == "not_found"


def test_the_page_needs_no_key(settings: Settings) -> None:
    with ApiServer(settings.model_copy(update={"auth": "required"})) as server:
        page = httpx2.get(server.url, timeout=60)
        assert page.status_code == 200
        assert {
            httpx2.get(f"{server.url}{path}", timeout=60).status_code for path in links(page.text)
        } == {200}
        assert httpx2.get(f"{server.url}/capabilities", timeout=60).status_code == 401


def test_the_page_is_small() -> None:
    site = load_site()
    sizes = {name: len(asset.gzipped) for name, asset in site.files.items()}
    sizes["index.html"] = len(site.page.gzipped)
    assert sum(sizes.values()) <= MAX_BYTES, sizes


def test_no_file_is_too_long() -> None:
    lengths = {
        path.relative_to(FOLDER).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in FOLDER.rglob("*")
        if path.is_file()
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_scripts_write_text_only_as_text() -> None:
    """Trusted types refuse the rest as well, but only when it runs."""
    unsafe = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(")
    found = [p.name for p in FOLDER.rglob("*.js") if unsafe.search(p.read_text(encoding="utf-8"))]
    assert found == []

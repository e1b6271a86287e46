"""`/`: the page for browsers. Its files are in `api/playground` and are sent as they are written.

The path of the page's files has a hash of all of them, so browsers may keep them for ever.
"""

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Response

from api.http.errors import UnknownPath
from api.submit.dependencies import ServiceSettings
from worker.settings import Settings

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
_AMAZON: Final = "https://*.amazonaws.com"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, plain and compressed."""

    plain: bytes
    gzipped: bytes
    media_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class Site:
    """The page, and its files by path; `version` is a hash of all of them."""

    page: Asset
    files: dict[str, Asset]
    version: str


@router.get("/")
async def page(
    settings: ServiceSettings,
    accept_encoding: Annotated[str, Header()] = "",
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """The page. Browsers ask each time whether it has changed."""
    response = _answer(load_site().page, accept_encoding, if_none_match, "no-cache")
    response.headers["Content-Security-Policy"] = content_security_policy(settings)
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


@router.get("/playground/{version}/{path:path}")
async def file(
    version: str,
    path: str,
    accept_encoding: Annotated[str, Header()] = "",
    if_none_match: Annotated[str, Header()] = "",
) -> Response:
    """A script, style or picture of the page; 404 if there is none of this path."""
    site = load_site()
    asset = site.files.get(path)
    if asset is None:
        raise UnknownPath
    # During an update, the page may come from a process of another version.
    caching = _IMMUTABLE if version == site.version else "no-cache"
    return _answer(asset, accept_encoding, if_none_match, caching)


@cache
def load_site() -> Site:
    """Read `api/playground` once: the page with links to all styles and scripts, and its templates.

    `seed.html` beside `seed.js` is the content of the template `kz-seed`.
    """
    texts = dict(sorted(_read(resources.files("api") / "playground")))
    index = texts.pop("index.html")
    version = hashlib.sha256(repr([index, *texts.items()]).encode()).hexdigest()[:16]
    root = f"playground/{version}"
    others = [path for path in texts if path not in index]
    links = [f'<link rel="stylesheet" href="{root}/{path}">' for path in others if _is(path, "css")]
    links += [
        f'<link rel="modulepreload" href="{root}/{path}">' for path in others if _is(path, "js")
    ]
    templates = [
        f'<template id="kz-{PurePosixPath(path).stem}">\n{text}</template>'
        for path, text in texts.items()
        if _is(path, "html")
    ]
    index = index.replace("<!-- links -->", "\n".join(links))
    index = index.replace("<!-- templates -->", "\n".join(templates)).replace("{root}", root)
    files = {path: _asset(path, text) for path, text in texts.items() if not _is(path, "html")}
    return Site(page=_asset("index.html", index), files=files, version=version)


def content_security_policy(settings: Settings) -> str:
    """Only this origin, no inline code or style; images also from the bucket that has them."""
    pictures = " ".join(["'self'", "data:", "blob:", *_bucket_origins(settings)])
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        f"img-src {pictures}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _bucket_origins(settings: Settings) -> list[str]:
    """Where images are redirected to; the bucket may be a part of the host."""
    if settings.store == "local":
        return []
    endpoint = settings.s3_public_endpoint or settings.s3_endpoint
    if endpoint is None:
        return [_AMAZON]
    parts = urlsplit(endpoint)
    return [f"{parts.scheme}://{parts.netloc}", f"{parts.scheme}://*.{parts.netloc}"]


def _answer(asset: Asset, accepted: str, if_none_match: str, caching: str) -> Response:
    is_gzipped = "gzip" in accepted
    etag = f'"{asset.digest}{"-gzip" if is_gzipped else ""}"'
    headers = {"ETag": etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    offered = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    if etag in offered or "*" in offered:
        return Response(status_code=304, headers=headers)
    if is_gzipped:
        headers["Content-Encoding"] = "gzip"
    content = asset.gzipped if is_gzipped else asset.plain
    return Response(content, headers={**headers, "Content-Type": asset.media_type})


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Path and text of each file below the folder."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif PurePosixPath(entry.name).suffix in _TYPES:
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf-8")


def _is(path: str, suffix: str) -> bool:
    return path.endswith(f".{suffix}")


def _asset(path: str, text: str) -> Asset:
    plain = text.encode()
    return Asset(
        plain=plain,
        gzipped=gzip.compress(plain, mtime=0),
        media_type=_TYPES[PurePosixPath(path).suffix],
        digest=hashlib.sha256(plain).hexdigest()[:32],
    )

"""Image bytes: caching, ranges, and names that lead nowhere."""

import httpx2
import pytest

from tests.api.test_bad_input import is_problem
from worker.settings import Settings
from worker.store import LocalImageStore

DATA = bytes(range(256)) * 1000


@pytest.fixture
def store(settings: Settings) -> LocalImageStore:
    return LocalImageStore(settings.data_dir / "images")


@pytest.mark.parametrize(
    ("extension", "media_type"),
    [("png", "png"), ("webp", "webp"), ("jpg", "jpeg"), ("avif", "avif")],
)
def test_a_picture(
    client: httpx2.Client, store: LocalImageStore, extension: str, media_type: str
) -> None:
    name = store.put(DATA, extension)
    answer = client.get(f"/images/{name}")
    assert answer.status_code == 200
    assert answer.content == DATA
    assert answer.headers["content-type"] == f"image/{media_type}"
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["etag"] == f'"{name.partition(".")[0]}"'
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'


def test_head_tells_all_but_the_bytes(client: httpx2.Client, store: LocalImageStore) -> None:
    answer = client.head(f"/images/{store.put(DATA, 'png')}")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.content == b""


@pytest.mark.parametrize("form", ["{}", "W/{}", '"a", {}', "*"])
def test_a_picture_that_the_client_has(
    client: httpx2.Client, store: LocalImageStore, form: str
) -> None:
    name = store.put(DATA, "png")
    etag = f'"{name.partition(".")[0]}"'
    answer = client.get(f"/images/{name}", headers={"if-none-match": form.format(etag)})
    assert answer.status_code == 304
    assert answer.content == b""
    assert answer.headers["etag"] == etag
    assert "immutable" in answer.headers["cache-control"]


def test_another_etag_gets_the_bytes(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(DATA, "png")
    answer = client.get(f"/images/{name}", headers={"if-none-match": '"other"'})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=255990-", 206, DATA[-10:]),
        ("bytes=-5", 206, DATA[-5:]),
        ("bytes=0-9999999", 206, DATA),
        ("bytes=nonsense", 200, DATA),
        ("lines=0-9", 200, DATA),
        ("bytes=9-3", 200, DATA),
    ],
)
def test_ranges(
    client: httpx2.Client, store: LocalImageStore, asked: str, status: int, expected: bytes
) -> None:
    answer = client.get(f"/images/{store.put(DATA, 'png')}", headers={"range": asked})
    assert answer.status_code == status
    assert answer.content == expected


def test_a_range_outside_the_file(client: httpx2.Client, store: LocalImageStore) -> None:
    answer = client.get(f"/images/{store.put(DATA, 'png')}", headers={"range": "bytes=999999-"})
    assert answer.status_code == 416
    assert is_problem(answer)["code"] == "range_not_satisfiable"
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_a_removed_picture_is_gone(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(b"picture to remove", "png")
    store.delete(name)
    answer = client.get(f"/images/{name}")
    assert answer.status_code == 410
    assert is_problem(answer)["code"] == "image_expired"


def test_a_picture_that_never_was(client: httpx2.Client) -> None:
    answer = client.get(f"/images/{'0' * 40}.png")
    assert answer.status_code == 404
    assert is_problem(answer)["code"] == "image_not_found"


def test_no_name_leads_out_of_the_folder(client: httpx2.Client, settings: Settings) -> None:
    secret = settings.data_dir / f"{'a' * 40}.png"
    secret.write_bytes(b"secret")
    for name in (f"..%2f{secret.name}", f"%2e%2e/{secret.name}", f"{secret}"):
        assert client.get(f"/images/{name}").status_code == 404

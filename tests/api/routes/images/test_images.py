"""Image bytes: caching, ranges, names that lead nowhere, and the way to a bucket."""

import asyncio
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.support.api_calls import read_problem
from tests.support.api_server import ApiServer
from tests.support.s3_server import BUCKET, KEY, SECRET, FaultyProxy, Mode, S3Server
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import ImageStore, LocalImageStore
from worker.store.open_store import open_store

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
    assert read_problem(answer)["code"] == "range_not_satisfiable"
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_a_removed_picture_is_gone(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(b"picture to remove", "png")
    store.delete(name)
    answer = client.get(f"/images/{name}")
    assert answer.status_code == 410
    assert read_problem(answer)["code"] == "image_expired"


def test_a_picture_that_never_was(client: httpx2.Client) -> None:
    answer = client.get(f"/images/{'0' * 40}.png")
    assert answer.status_code == 404
    assert read_problem(answer)["code"] == "image_not_found"


def test_no_name_leads_out_of_the_folder(client: httpx2.Client, settings: Settings) -> None:
    secret = settings.data_dir / f"{'a' * 40}.png"
    secret.write_bytes(b"secret")
    for name in (f"..%2f{secret.name}", f"%2e%2e/{secret.name}", f"{secret}"):
        assert client.get(f"/images/{name}").status_code == 404


class Far:
    """A service whose images are in a bucket, behind a line that may break."""

    def __init__(self, settings: Settings, line: FaultyProxy) -> None:
        self.line = line
        self.store: ImageStore = open_store(settings)
        self.running = ApiServer(settings)


@pytest.fixture(scope="module")
def far(settings: Settings, s3_server: S3Server) -> Iterator[Far]:
    line = FaultyProxy(s3_server.url)
    changes = {
        "store": f"s3://{BUCKET}/api",
        "s3_endpoint": line.url,
        "s3_public_endpoint": s3_server.url,
        "s3_access_key_id": KEY,
        "s3_secret_access_key": SECRET,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_store, "_ANSWER_SECONDS", 1)
        patch.setattr(s3_store, "_CHECKED_SECONDS", 0.2)
        patch.setattr(s3_store, "_FAILED_SECONDS", 0.2)
        far = Far(Settings(_env_file=None, **settings.model_dump() | changes), line)
        far.running.start()
        try:
            yield far
        finally:
            far.running.stop()
            line.close()


@pytest.fixture
def far_client(far: Far, redis_url: str) -> Iterator[httpx2.Client]:
    far.line.set("pass")
    with httpx2.Client(base_url=far.running.url, timeout=20, trust_env=False) as opened:
        yield opened


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_picture_in_a_bucket_is_fetched_from_there(
    far: Far, far_client: httpx2.Client, method: str
) -> None:
    name = far.store.put(DATA, "webp")
    answer = far_client.request(method, f"/images/{name}")
    assert answer.status_code == 307
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content == b""
    there = far_client.request(method, f"/images/{name}", follow_redirects=True)
    assert there.status_code == 200
    assert "X-Amz-Signature=" in str(there.url)
    assert there.headers["content-type"] == "image/webp"
    assert there.headers["content-length"] == str(len(DATA))
    assert there.content == (DATA if method == "GET" else b"")


def test_a_part_of_a_picture_in_a_bucket(far: Far, far_client: httpx2.Client) -> None:
    name, part = far.store.put(DATA, "png"), {"range": "bytes=10-19"}
    answer = far_client.get(f"/images/{name}", headers=part, follow_redirects=True)
    assert (answer.status_code, answer.content) == (206, DATA[10:20])


def test_a_client_that_has_the_picture_is_not_sent_away(
    far: Far, far_client: httpx2.Client
) -> None:
    name = far.store.put(DATA, "png")
    etag = {"if-none-match": f'"{name.partition(".")[0]}"'}
    assert far_client.get(f"/images/{name}", headers=etag).status_code == 304


def test_a_bucket_tells_what_is_gone_from_what_never_was(
    far: Far, far_client: httpx2.Client
) -> None:
    name = far.store.put(b"to be removed", "png")
    far.store.delete(name)
    answer = far_client.get(f"/images/{name}")
    assert (answer.status_code, read_problem(answer)["code"]) == (410, "image_expired")
    answer = far_client.get(f"/images/{'0' * 40}.png")
    assert (answer.status_code, read_problem(answer)["code"]) == (404, "image_not_found")
    assert far_client.get("/images/..%2fsecret").status_code == 404


@pytest.mark.parametrize("mode", ["hang", "503"])
def test_a_bucket_that_is_away_is_a_problem_for_a_while(
    far: Far, far_client: httpx2.Client, mode: Mode
) -> None:
    name = far.store.put(DATA, "png")
    far.line.set(mode)

    async def ask_all() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=far.running.url, trust_env=False) as client:
            asked = [client.get(f"/images/{name}", timeout=20) for _ in range(30)]
            return await asyncio.gather(*asked, client.get("/livez"))

    began = time.monotonic()
    *answers, alive = asyncio.run(ask_all())
    assert time.monotonic() - began < 5, "one that waits must not keep the others waiting"
    assert alive.status_code == 200
    assert {answer.status_code for answer in answers} == {503}
    assert read_problem(answers[0])["code"] == "store_unavailable"
    assert answers[0].headers["retry-after"]
    assert far.line.url not in answers[0].text
    time.sleep(0.3)
    reasons = far_client.get("/readyz").json()["reasons"]
    assert any(f"cannot write in bucket {BUCKET}" in reason for reason in reasons)
    far.line.set("pass")
    assert far_client.get(f"/images/{name}").status_code == 307
    time.sleep(0.3)
    reasons = far_client.get("/readyz").json()["reasons"]
    assert not any("store" in reason for reason in reasons)

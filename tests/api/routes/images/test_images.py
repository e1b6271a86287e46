"""Reading images: caching, ranges, unknown names, and images in a bucket."""

import asyncio
import os
from collections.abc import Iterator

import httpx2
import pytest

from tests.support.api_calls import PROMPT, read_problem, submit_job
from tests.support.api_server import ApiServer
from tests.support.images import draw_image, encode_file, to_base64
from tests.support.manual_worker import ManualWorker
from tests.support.s3_server import BUCKET, KEY, SECRET, FaultyProxy, Mode, S3Server
from tests.support.waiting import async_wait_until, wait_until
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import ImageStore, LocalImageStore
from worker.store.open_store import open_store

DATA = bytes(range(256)) * 1000


@pytest.fixture
def store(settings: Settings) -> LocalImageStore:
    return LocalImageStore(settings.data_dir / "images")


def test_an_image_of_every_format(client: httpx2.Client, store: LocalImageStore) -> None:
    formats = {"png": "png", "webp": "webp", "jpg": "jpeg", "avif": "avif"}
    for extension, media_type in formats.items():
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


def test_head_has_the_headers_and_no_bytes(client: httpx2.Client, store: LocalImageStore) -> None:
    answer = client.head(f"/images/{store.put(DATA, 'png')}")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.content == b""


def test_a_cached_image_is_not_sent_again(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(DATA, "png")
    etag = f'"{name.partition(".")[0]}"'
    for form in ("{}", "W/{}", '"a", {}', "*"):
        answer = client.get(f"/images/{name}", headers={"if-none-match": form.format(etag)})
        assert answer.status_code == 304, form
        assert answer.content == b""
        assert answer.headers["etag"] == etag
        assert "immutable" in answer.headers["cache-control"]


def test_another_etag_gets_the_bytes(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(DATA, "png")
    answer = client.get(f"/images/{name}", headers={"if-none-match": '"other"'})
    assert answer.status_code == 200


def test_ranges(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(DATA, "png")
    for requested, status, expected in (
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=255990-", 206, DATA[-10:]),
        ("bytes=-5", 206, DATA[-5:]),
        ("bytes=0-9999999", 206, DATA),
        ("bytes=nonsense", 200, DATA),
        ("lines=0-9", 200, DATA),
        ("bytes=9-3", 200, DATA),
    ):
        answer = client.get(f"/images/{name}", headers={"range": requested})
        assert answer.status_code == status, requested
        assert answer.content == expected, requested


def test_a_range_outside_the_file(client: httpx2.Client, store: LocalImageStore) -> None:
    answer = client.get(f"/images/{store.put(DATA, 'png')}", headers={"range": "bytes=999999-"})
    assert answer.status_code == 416
    assert read_problem(answer)["code"] == "range_not_satisfiable"
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


def test_a_removed_image_is_gone(client: httpx2.Client, store: LocalImageStore) -> None:
    name = store.put(b"picture to remove", "png")
    store.delete(name)
    answer = client.get(f"/images/{name}")
    assert answer.status_code == 410
    assert read_problem(answer)["code"] == "image_expired"


def test_a_deleted_image_is_gone_and_its_job_stays(
    client: httpx2.Client, worker: ManualWorker, settings: Settings
) -> None:
    data = encode_file(draw_image((128, 128)))
    job_id = submit_job(client, num_images=2)
    worker.claim(job_id)
    image, other = worker.finish(job_id, data, DATA)
    queued = submit_job(client, init_image=image.url)
    for _ in range(2):
        answer = client.delete(image.url)
        assert (answer.status_code, answer.content) == (204, b"")
    assert (settings.data_dir / "images" / image.name).read_bytes() == b""
    gone = client.get(image.url)
    assert (gone.status_code, read_problem(gone)["code"]) == (410, "image_deleted")
    assert client.get(other.url).content == DATA
    (listed,) = [job for job in client.get("/jobs").json()["items"] if job["id"] == job_id]
    for job in (listed, client.get(f"/jobs/{job_id}").json()):
        assert [item["deleted"] for item in job["images"]] == [True, False]
    assert client.post(f"/jobs/{job_id}/replay").status_code == 202
    assert client.post("/verify", content=data).json()["made_by"]["job_id"] == job_id
    refused = client.post("/generate", json={"prompt": PROMPT, "init_image": image.url})
    assert refused.status_code == 422
    assert "its owner deleted it" in refused.text
    assert client.get(f"/jobs/{queued}").json()["status"] == "queued"


def test_an_unknown_image_cannot_be_deleted(client: httpx2.Client) -> None:
    answer = client.delete(f"/images/{'0' * 40}.png")
    assert (answer.status_code, read_problem(answer)["code"]) == (404, "image_not_found")
    assert client.delete("/images/x").status_code == 404


@pytest.mark.parametrize("change", ["cut", "removed"])
def test_an_image_that_was_changed_behind_the_service_is_lost(
    client: httpx2.Client, worker: ManualWorker, settings: Settings, change: str
) -> None:
    job_id = submit_job(client)
    worker.claim(job_id)
    (image,) = worker.finish(job_id, DATA)
    assert client.get(image.url).status_code == 200
    file = settings.data_dir / "images" / image.name
    file.unlink() if change == "removed" else os.truncate(file, 100)
    answer = client.get(image.url)
    assert (answer.status_code, read_problem(answer)["code"]) == (410, "image_lost")
    again = client.post("/generate", json={"prompt": PROMPT, "init_image": image.url})
    assert again.status_code == 422
    assert image.name in again.text


def test_an_unknown_image(client: httpx2.Client) -> None:
    answer = client.get(f"/images/{'0' * 40}.png")
    assert answer.status_code == 404
    assert read_problem(answer)["code"] == "image_not_found"


def test_no_name_leads_out_of_the_folder(client: httpx2.Client, settings: Settings) -> None:
    secret = settings.data_dir / f"{'a' * 40}.png"
    secret.write_bytes(b"secret")
    for name in (f"..%2f{secret.name}", f"%2e%2e/{secret.name}", f"{secret}"):
        assert client.get(f"/images/{name}").status_code == 404


class BucketService:
    """A service with its images in a bucket behind a faulty proxy."""

    def __init__(self, settings: Settings, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self.store: ImageStore = open_store(settings)
        self.running = ApiServer(settings)


@pytest.fixture(scope="module")
def bucket(settings: Settings, s3_server: S3Server) -> Iterator[BucketService]:
    proxy = FaultyProxy(s3_server.url)
    changes = {
        "store": f"s3://{BUCKET}/api",
        "s3_endpoint": proxy.url,
        "s3_public_endpoint": s3_server.url,
        "s3_access_key_id": KEY,
        "s3_secret_access_key": SECRET,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_store, "_ANSWER_SECONDS", 1)
        patch.setattr(s3_store, "_CHECKED_SECONDS", 0.2)
        patch.setattr(s3_store, "_FAILED_SECONDS", 0.2)
        bucket = BucketService(Settings(_env_file=None, **settings.model_dump() | changes), proxy)
        bucket.running.start()
        try:
            yield bucket
        finally:
            bucket.running.stop()
            proxy.close()


@pytest.fixture
def bucket_client(bucket: BucketService, redis_url: str) -> Iterator[httpx2.Client]:
    bucket.proxy.set("pass")
    with httpx2.Client(base_url=bucket.running.url, timeout=20, trust_env=False) as opened:
        yield opened


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_image_in_a_bucket_is_fetched_from_there(
    bucket: BucketService, bucket_client: httpx2.Client, method: str
) -> None:
    name = bucket.store.put(DATA, "webp")
    answer = bucket_client.request(method, f"/images/{name}")
    assert answer.status_code == 307
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content == b""
    there = bucket_client.request(method, f"/images/{name}", follow_redirects=True)
    assert there.status_code == 200
    assert "X-Amz-Signature=" in str(there.url)
    assert there.headers["content-type"] == "image/webp"
    assert there.headers["content-length"] == str(len(DATA))
    assert there.content == (DATA if method == "GET" else b"")


def test_a_range_of_an_image_in_a_bucket(
    bucket: BucketService, bucket_client: httpx2.Client
) -> None:
    name, part = bucket.store.put(DATA, "png"), {"range": "bytes=10-19"}
    answer = bucket_client.get(f"/images/{name}", headers=part, follow_redirects=True)
    assert (answer.status_code, answer.content) == (206, DATA[10:20])


def test_a_client_with_a_cached_image_is_not_redirected(
    bucket: BucketService, bucket_client: httpx2.Client
) -> None:
    name = bucket.store.put(DATA, "png")
    etag = {"if-none-match": f'"{name.partition(".")[0]}"'}
    assert bucket_client.get(f"/images/{name}", headers=etag).status_code == 304


def test_a_bucket_tells_expired_from_unknown_images(
    bucket: BucketService, bucket_client: httpx2.Client
) -> None:
    name = bucket.store.put(b"to be removed", "png")
    bucket.store.delete(name)
    answer = bucket_client.get(f"/images/{name}")
    assert (answer.status_code, read_problem(answer)["code"]) == (410, "image_expired")
    answer = bucket_client.get(f"/images/{'0' * 40}.png")
    assert (answer.status_code, read_problem(answer)["code"]) == (404, "image_not_found")
    assert bucket_client.get("/images/..%2fsecret").status_code == 404


def test_an_image_that_vanished_from_a_bucket_is_lost(
    bucket: BucketService, bucket_client: httpx2.Client, worker: ManualWorker
) -> None:
    job_id = submit_job(bucket_client)
    worker.claim(job_id)
    (image,) = worker.finish(job_id, b"never in the bucket")
    answer = bucket_client.get(image.url)
    assert (answer.status_code, read_problem(answer)["code"]) == (410, "image_lost")


def test_a_slow_bucket_delays_only_what_needs_it(
    bucket: BucketService, bucket_client: httpx2.Client
) -> None:
    name = bucket.store.put(DATA, "png")
    given = {"prompt": PROMPT, "init_image": to_base64(encode_file(draw_image(), "PNG"))}
    stored = {"prompt": PROMPT, "init_image": name}
    bucket.proxy.set("hang")

    async def ask_all() -> None:
        async with httpx2.AsyncClient(
            base_url=bucket.running.url, trust_env=False, timeout=60
        ) as client:
            held = [
                asyncio.create_task(client.post("/generate", json=body))
                for body in (given, stored)
                for _ in range(20)
            ]
            before = bucket.proxy.requests
            await async_wait_until(lambda: bucket.proxy.requests - before >= 20)
            for _ in range(3):
                free = [
                    client.post("/generate", json={"prompt": PROMPT}),
                    client.post("/generate?dry_run=true", json=given),
                    client.post("/sdapi/v1/png-info", json={"image": given["init_image"]}),
                ]
                assert [a.status_code for a in await asyncio.gather(*free)] == [202, 200, 200]
            assert not any(task.done() for task in held)
            bucket.proxy.set("pass")
            await asyncio.gather(*held)

    asyncio.run(ask_all())


@pytest.mark.parametrize("mode", ["hang", "503"])
def test_an_unreachable_bucket_is_a_temporary_problem(
    bucket: BucketService, bucket_client: httpx2.Client, mode: Mode
) -> None:
    name = bucket.store.put(DATA, "png")
    bucket.proxy.set(mode)

    async def ask_all() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(
            base_url=bucket.running.url, trust_env=False, timeout=60
        ) as client:
            asked = [client.get(f"/images/{name}", timeout=20) for _ in range(30)]
            return await asyncio.gather(*asked, client.get("/livez"))

    # One after another they would exceed the client's timeout.
    *answers, alive = asyncio.run(ask_all())
    assert alive.status_code == 200
    assert {answer.status_code for answer in answers} == {503}
    assert read_problem(answers[0])["code"] == "store_unavailable"
    assert answers[0].headers["retry-after"]
    assert bucket.proxy.url not in answers[0].text
    wait_until(lambda: f"cannot write in bucket {BUCKET}" in bucket_client.get("/readyz").text)
    bucket.proxy.set("pass")
    assert bucket_client.get(f"/images/{name}").status_code == 307
    wait_until(lambda: "store" not in str(bucket_client.get("/readyz").json()["reasons"]))

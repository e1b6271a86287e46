"""Tests the store in a bucket: signed URLs, pages, wrong keys, and a server that fails."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import httpx2
import obstore
import pytest

from tests.support.image_stores import DATA, UNKNOWN, image_names, locate, locate_url
from tests.support.s3_server import BUCKET, FaultyProxy, Mode, S3Server
from tests.support.waiting import wait_until
from worker.errors import ImageNotFound, StoreError
from worker.store import s3 as s3_store
from worker.store.s3 import Bucket, S3ImageStore


def test_a_bucket_gives_signed_urls(bucket: Bucket) -> None:
    store = S3ImageStore(bucket)
    name = store.put(DATA, "webp")
    url = locate_url(store, name)
    with httpx2.Client(trust_env=False, timeout=60) as client:
        response = client.get(url)
        assert (response.status_code, response.content) == (200, DATA)
        assert response.headers["content-type"] == "image/webp"
        assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert response.headers["content-disposition"] == f'inline; filename="{name}"'
        assert client.get(url, headers={"range": "bytes=2-4"}).content == DATA[2:5]
        head = locate_url(store, name, is_head=True)
        assert client.head(head).headers["content-length"] == str(len(DATA))
        assert client.head(url).status_code == 403
        assert client.get(url.partition("?")[0]).status_code == 403
        other = store.put(b"another", "webp")
        assert client.get(url.replace(name, other)).status_code == 403
        store.delete(name)
        assert client.get(url).status_code == 404


def test_a_signed_url_expires(bucket: Bucket) -> None:
    store = S3ImageStore(bucket, signed_seconds=1)
    url = locate_url(store, store.put(DATA, "png"))
    with httpx2.Client(trust_env=False, timeout=60) as client:
        wait_until(lambda: client.get(url).status_code == 403)
        assert "SignatureDoesNotMatch" not in client.get(url).text


def test_clients_may_use_another_endpoint(s3_server: S3Server) -> None:
    public = s3_server.url.replace("127.0.0.1", "localhost")
    store = S3ImageStore(replace(s3_server.bucket("named"), public_endpoint=public))
    url = locate_url(store, store.put(DATA, "png"))
    assert url.startswith(f"{public}/{BUCKET}/named/images/")
    assert httpx2.get(url, trust_env=False, timeout=60).content == DATA


def test_storing_an_image_again_resets_its_age(bucket: Bucket) -> None:
    store = S3ImageStore(bucket)
    name = store.put(DATA, "png")

    def stored_at() -> float:
        return obstore.head(store._quick, f"images/{name}")["last_modified"].timestamp()

    first = stored_at()
    wait_until(lambda: (store.age(name) or 0) > 1)  # S3 counts whole seconds
    store.put(DATA, "png")
    assert stored_at() > first
    [(listed, age)] = store.list_images()
    assert listed == name
    assert age >= 0


def test_a_bucket_is_listed_and_cleaned_in_pages(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "_PAGE", 3)
    store = S3ImageStore(bucket)
    stored = [store.put(b"%d" % number, "png") for number in range(8)]
    assert image_names(store) == sorted(stored)
    for name in stored:
        store.delete(name)
    store.clean(marks_older_than=-1)
    for name in stored:
        with pytest.raises(ImageNotFound):
            store.read(name)


def test_prefixes_separate_services(s3_server: S3Server) -> None:
    one = S3ImageStore(s3_server.bucket("together/one"))
    two = S3ImageStore(s3_server.bucket("together/two"))
    name = one.put(DATA, "png")
    assert image_names(two) == []
    with pytest.raises(ImageNotFound):
        two.read(name)


def test_a_wrong_key_is_an_error_that_does_not_show_it(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = S3ImageStore(replace(bucket, secret_access_key="wrong-secret"))
    for call in (lambda: store.put(DATA, "png"), store.check):
        with pytest.raises(StoreError, match="403 Forbidden, SignatureDoesNotMatch") as raised:
            call()
        assert str(bucket.endpoint) not in str(raised.value)
    with pytest.raises(StoreError):
        locate(store, UNKNOWN)
    assert "wrong-secret" not in caplog.text
    assert "wrong-secret" not in repr(store)


# -- a server that fails ---------------------------------------------------------------------


@pytest.fixture
def make_store(
    s3_server: S3Server, s3_proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], S3ImageStore]:
    """Makes stores behind the proxy with a timeout of their own."""

    def make(seconds: float) -> S3ImageStore:
        monkeypatch.setattr(s3_store, "_ANSWER_SECONDS", seconds)
        monkeypatch.setattr(s3_store, "_TRANSFER_SECONDS", seconds)
        return S3ImageStore(s3_server.bucket("far", endpoint=s3_proxy.url))

    monkeypatch.setattr(s3_store, "_FAILED_SECONDS", 0)
    return make


def calls(store: S3ImageStore, name: str) -> list[Callable[[], object]]:
    """One call of each kind."""
    return [
        store.check,
        lambda: locate(store, name),
        lambda: store.put(b"new", "png"),
        lambda: store.read(name),
        lambda: store.delete(name),
        lambda: store.age(name),
        lambda: image_names(store),
        lambda: store.clean(marks_older_than=0),
    ]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("hang", "does not answer in time"),
        ("refuse", f"bucket {BUCKET}"),
        ("503", "503 Service Unavailable"),
    ],
)
def test_a_server_that_fails_is_an_error_until_it_works_again(
    make_store: Callable[[float], S3ImageStore], s3_proxy: FaultyProxy, mode: Mode, reason: str
) -> None:
    patient = make_store(60)
    name = patient.put(DATA, "png")
    s3_proxy.set(mode)
    tried = calls(make_store(0.2), name)[:3] if mode == "hang" else calls(patient, name)
    for call in tried:
        with pytest.raises(StoreError, match=reason):
            call()
    s3_proxy.set("pass")
    assert patient.read(name) == DATA
    assert isinstance(locate(patient, name), str)
    assert patient.read(patient.put(b"new", "png")) == b"new"
    patient.check()


def test_the_result_of_a_check_is_reused(
    make_store: Callable[[float], S3ImageStore],
    s3_proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_store, "_CHECKED_SECONDS", 3600)
    monkeypatch.setattr(s3_store, "_FAILED_SECONDS", 3600)
    store = make_store(60)
    store.check()
    s3_proxy.set("refuse")
    requests = s3_proxy.requests
    for _ in range(50):
        store.check()
    assert s3_proxy.requests == requests
    with pytest.raises(StoreError):
        store.probe()
    s3_proxy.set("pass")
    with pytest.raises(StoreError):
        store.check()


def test_a_check_does_not_wait_for_another(
    make_store: Callable[[float], S3ImageStore], s3_proxy: FaultyProxy
) -> None:
    store = make_store(60)
    s3_proxy.set("hang")
    errors: list[StoreError] = []

    def check() -> None:
        try:
            store.check()
        except StoreError as exc:
            errors.append(exc)

    first = threading.Thread(target=check)
    first.start()
    wait_until(store._checking.locked)
    for _ in range(100):
        store.check()  # returns although the first probe has not ended
    assert store._checking.locked()
    s3_proxy.set("refuse")
    first.join()
    assert len(errors) == 1

"""Both stores keep the same promises; each then has some of its own."""

import asyncio
import hashlib
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.support.disks import limited_files, small_disk
from tests.support.s3_server import BUCKET, KEY, SECRET, FaultyProxy, Mode, S3Server
from worker.errors import ImageExpired, ImageNotFound, StoreError
from worker.settings import Settings
from worker.store import s3 as s3_store
from worker.store.image_store import ImageStore, LocalImageStore
from worker.store.open_store import open_store
from worker.store.s3 import Bucket, S3ImageStore

DATA = b"a picture"
NOBODY = "a" * 40 + ".png"


@pytest.fixture
def local(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """A prefix that nothing is below."""
    return s3_server.bucket(f"test/{uuid4().hex}")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ImageStore:
    if request.param == "local":
        return LocalImageStore(request.getfixturevalue("tmp_path") / "images")
    return S3ImageStore(request.getfixturevalue("bucket"))


def locate(store: ImageStore, name: str, *, is_head: bool = False) -> Path | str:
    return asyncio.run(store.locate(name, is_head=is_head))


def names(store: ImageStore) -> list[str]:
    return sorted(name for name, _ in store.list_images())


# -- what every store promises ---------------------------------------------------------------


def test_a_picture_lies_under_the_name_of_its_content(store: ImageStore) -> None:
    name = store.put(DATA, "png")
    assert name == hashlib.sha256(DATA).hexdigest()[:40] + ".png"
    assert store.read(name) == DATA
    assert store.put(DATA, "png") == name
    other = store.put(DATA, "webp")
    assert other != name
    assert names(store) == sorted([name, other])


def test_bytes_come_back_as_they_were(store: ImageStore) -> None:
    data = os.urandom(7_000_000)
    assert store.read(store.put(data, "png")) == data


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../secret.png",
        "a" * 40,
        "a" * 40 + ".gif",
        "A" * 40 + ".png",
        "a" * 40 + ".png\n",
        "a" * 40 + ".png/..",
        "/etc/passwd",
        "a" * 39 + "\0.png",
    ],
)
def test_a_name_of_another_shape_is_never_looked_up(store: ImageStore, name: str) -> None:
    for look in (store.read, lambda text: locate(store, text)):
        with pytest.raises(ImageNotFound, match="40 hex digits"):
            look(name)
    assert store.age(name) is None
    store.delete(name)


def test_unknown_and_deleted_pictures_differ(store: ImageStore) -> None:
    for look in (store.read, lambda text: locate(store, text)):
        with pytest.raises(ImageNotFound):
            look(NOBODY)
    store.delete(NOBODY)
    name = store.put(DATA, "png")
    store.delete(name)
    for look in (store.read, lambda text: locate(store, text)):
        with pytest.raises(ImageExpired):
            look(name)
        with pytest.raises(ImageNotFound):
            look(NOBODY)
    assert names(store) == []
    assert store.age(name) is None
    assert store.put(DATA, "png") == name
    assert store.read(name) == DATA


def test_putting_it_again_makes_a_picture_young(store: ImageStore) -> None:
    assert store.age(NOBODY) is None
    name = store.put(DATA, "png")
    pause = 2.1 if isinstance(store, S3ImageStore) else 0.2  # S3 counts in seconds
    time.sleep(pause)
    old = store.age(name)
    assert old is not None
    assert pause - 0.1 <= old < 20
    store.put(DATA, "png")
    [(_, age)] = store.list_images()
    assert age < old
    assert (store.age(name) or 99) < old + 1


def test_bad_input_is_refused(store: ImageStore) -> None:
    with pytest.raises(StoreError, match="gif"):
        store.put(DATA, "gif")
    with pytest.raises(StoreError, match="0 bytes"):
        store.put(b"", "png")
    assert names(store) == []


def test_a_store_that_works_says_so_and_shows_nothing(store: ImageStore) -> None:
    store.check()
    store.probe()
    assert names(store) == []


def test_old_marks_are_cleaned(store: ImageStore) -> None:
    kept, gone = store.put(b"kept", "png"), store.put(b"gone", "png")
    store.delete(gone)
    store.clean(marks_older_than=60)
    with pytest.raises(ImageExpired):
        store.read(gone)
    time.sleep(1.1 if isinstance(store, S3ImageStore) else 0.1)
    store.clean(marks_older_than=0.05)
    with pytest.raises(ImageNotFound):
        store.read(gone)
    assert names(store) == [kept]
    assert store.read(kept) == b"kept"


# -- a folder --------------------------------------------------------------------------------


def test_a_folder_gives_files(local: LocalImageStore) -> None:
    name = local.put(DATA, "png")
    place = locate(local, name)
    assert isinstance(place, Path)
    assert place == local.path(name)
    assert place.read_bytes() == DATA


def test_leftovers_of_broken_writes_are_cleaned(local: LocalImageStore, tmp_path: Path) -> None:
    kept = local.put(b"kept", "png")
    leftover = tmp_path / "images" / ".new-broken"
    leftover.write_bytes(b"half")
    local.clean(marks_older_than=60)
    assert leftover.exists()
    os.utime(leftover, (time.time() - 100, time.time() - 100))
    local.clean(marks_older_than=60)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [kept]


def test_something_in_the_way_is_told(tmp_path: Path) -> None:
    blocked = LocalImageStore(tmp_path / "file")
    (tmp_path / "file").write_text("in the way")
    for call in (lambda: blocked.put(DATA, "png"), blocked.check):
        with pytest.raises(StoreError):
            call()


def check_full(store: LocalImageStore, root: Path, old: str) -> None:
    """A full disk refuses a picture, leaves nothing of it behind and spoils no other."""
    with pytest.raises(StoreError, match="cannot write"):
        store.put(os.urandom(2_000_000), "png")
    with pytest.raises(StoreError, match="cannot write"):
        store.check()
    assert [path.name for path in root.iterdir()] == [old]
    assert store.read(old) == DATA


def test_a_quota_refuses_whole_pictures_and_no_others(
    local: LocalImageStore, tmp_path: Path
) -> None:
    old = local.put(DATA, "png")
    with limited_files(500_000):
        check_full(local, tmp_path / "images", old)
    local.check()
    data = os.urandom(2_000_000)
    assert local.read(local.put(data, "png")) == data


def test_a_full_disk_refuses_whole_pictures_and_no_others(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as resize:
        store = LocalImageStore(tmp_path / "disk")
        old = store.put(DATA, "png")
        with pytest.raises(StoreError, match="No space left"):
            store.put(os.urandom(2_000_000), "png")
        check_full(store, tmp_path / "disk", old)
        resize("8m")
        store.check()
        data = os.urandom(2_000_000)
        assert store.read(store.put(data, "png")) == data


# -- a bucket --------------------------------------------------------------------------------


def test_a_bucket_gives_signed_urls(bucket: Bucket) -> None:
    store = S3ImageStore(bucket)
    name = store.put(DATA, "webp")
    url = locate(store, name)
    assert isinstance(url, str)
    with httpx2.Client(trust_env=False) as client:
        answer = client.get(url)
        assert (answer.status_code, answer.content) == (200, DATA)
        assert answer.headers["content-type"] == "image/webp"
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert answer.headers["content-disposition"] == f'inline; filename="{name}"'
        assert client.get(url, headers={"range": "bytes=2-4"}).content == DATA[2:5]
        head = locate(store, name, is_head=True)
        assert isinstance(head, str)
        assert client.head(head).headers["content-length"] == str(len(DATA))
        assert client.head(url).status_code == 403
        assert client.get(url.partition("?")[0]).status_code == 403
        other = store.put(b"another", "webp")
        assert client.get(url.replace(name, other)).status_code == 403
        store.delete(name)
        assert client.get(url).status_code == 404


def test_a_signed_url_ends(bucket: Bucket) -> None:
    store = S3ImageStore(bucket, signed_seconds=1)
    url = locate(store, store.put(DATA, "png"))
    assert isinstance(url, str)
    with httpx2.Client(trust_env=False) as client:
        assert client.get(url).status_code == 200
        time.sleep(2.1)
        assert client.get(url).status_code == 403


def test_clients_may_reach_the_server_by_another_name(s3_server: S3Server) -> None:
    public = s3_server.url.replace("127.0.0.1", "localhost")
    store = S3ImageStore(replace(s3_server.bucket("named"), public_endpoint=public))
    url = locate(store, store.put(DATA, "png"))
    assert isinstance(url, str)
    assert url.startswith(f"{public}/{BUCKET}/named/images/")
    assert httpx2.get(url, trust_env=False).content == DATA


def test_a_bucket_is_listed_and_cleaned_in_pages(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "_PAGE", 3)
    store = S3ImageStore(bucket)
    kept = [store.put(b"%d" % number, "png") for number in range(8)]
    assert names(store) == sorted(kept)
    for name in kept:
        store.delete(name)
    time.sleep(1.1)
    store.clean(marks_older_than=0.5)
    for name in kept:
        with pytest.raises(ImageNotFound):
            store.read(name)


def test_prefixes_keep_services_apart(s3_server: S3Server) -> None:
    one = S3ImageStore(s3_server.bucket("together/one"))
    two = S3ImageStore(s3_server.bucket("together/two"))
    name = one.put(DATA, "png")
    assert names(two) == []
    with pytest.raises(ImageNotFound):
        two.read(name)


def test_a_wrong_key_is_told_and_never_shown(
    bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = S3ImageStore(replace(bucket, secret_access_key="wrong-secret"))
    for call in (lambda: store.put(DATA, "png"), store.check):
        with pytest.raises(StoreError, match="403 Forbidden, SignatureDoesNotMatch") as told:
            call()
        assert str(bucket.endpoint) not in str(told.value)
    with pytest.raises(StoreError):
        locate(store, NOBODY)
    assert "wrong-secret" not in caplog.text
    assert "wrong-secret" not in repr(store)


@pytest.fixture
def far(s3_server: S3Server, line: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> S3ImageStore:
    """A store behind a line that may break; whoever waits for it gives up after a second."""
    monkeypatch.setattr(s3_store, "_ANSWER_SECONDS", 1)
    monkeypatch.setattr(s3_store, "_TRANSFER_SECONDS", 1)
    monkeypatch.setattr(s3_store, "_FAILED_SECONDS", 0.3)
    return S3ImageStore(s3_server.bucket("far", endpoint=line.url))


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("hang", "does not answer in time"),
        ("refuse", f"bucket {BUCKET}"),
        ("503", "503 Service Unavailable"),
    ],
)
def test_a_bucket_that_is_away_is_told_and_comes_back(
    far: S3ImageStore, line: FaultyProxy, mode: Mode, why: str
) -> None:
    name = far.put(DATA, "png")
    line.set(mode)
    calls = (
        far.check,
        lambda: locate(far, name),
        lambda: far.put(b"new", "png"),
        lambda: far.read(name),
        lambda: far.delete(name),
        lambda: far.age(name),
        lambda: names(far),
        lambda: far.clean(marks_older_than=0),
    )
    for call in calls[: 3 if mode == "hang" else None]:
        began = time.monotonic()
        with pytest.raises(StoreError, match=why):
            call()
        assert time.monotonic() - began < 3
    line.set("pass")
    assert far.read(name) == DATA
    assert isinstance(locate(far, name), str)
    assert far.read(far.put(b"new", "png")) == b"new"
    time.sleep(0.4)
    far.check()


def test_a_check_asks_the_bucket_now_and_then(far: S3ImageStore, line: FaultyProxy) -> None:
    far.check()
    line.set("refuse")
    asked = line.requests
    for _ in range(50):
        far.check()
    assert line.requests == asked
    with pytest.raises(StoreError):
        far.probe()
    with pytest.raises(StoreError):
        far.check()


def test_a_check_waits_for_no_other(far: S3ImageStore, line: FaultyProxy) -> None:
    line.set("hang")
    faults: list[StoreError] = []

    def ask() -> None:
        try:
            far.check()
        except StoreError as exc:
            faults.append(exc)

    first = threading.Thread(target=ask)
    first.start()
    time.sleep(0.2)
    began = time.monotonic()
    for _ in range(100):
        far.check()  # nothing is known yet
    assert time.monotonic() - began < 0.5
    first.join()
    assert len(faults) == 1


# -- the settings ----------------------------------------------------------------------------


def test_the_settings_choose(s3_server: S3Server, tmp_path: Path) -> None:
    local = open_store(Settings(_env_file=None, data_dir=tmp_path))
    name = local.put(DATA, "png")
    assert (tmp_path / "images" / name).read_bytes() == DATA
    settings = Settings(
        _env_file=None,
        store=f"s3://{BUCKET}/chosen/by/settings/",
        s3_endpoint=s3_server.url,
        s3_access_key_id=KEY,
        s3_secret_access_key=SECRET,
    )
    assert SECRET not in repr(settings)
    store = open_store(settings)
    name = store.put(DATA, "png")
    assert f"/{BUCKET}/chosen/by/settings/images/{name}?" in str(locate(store, name))


def test_keys_may_come_from_the_usual_variables(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store = open_store(
        Settings(_env_file=None, store=f"s3://{BUCKET}/usual", s3_endpoint=s3_server.url)
    )
    assert store.read(store.put(DATA, "png")) == DATA


def test_half_a_pair_of_keys_is_refused_and_not_shown() -> None:
    settings = Settings(_env_file=None, store="s3://bucket", s3_secret_access_key="half")
    with pytest.raises(ValueError, match="belong together") as told:
        open_store(settings)
    assert "half" not in str(told.value)


@pytest.mark.parametrize("store", ["s3:/x", "s3://", "s3://Bucket", "gs://b", "s3://b/../c d"])
def test_other_places_are_refused(store: str) -> None:
    with pytest.raises(ValueError, match="store"):
        Settings(_env_file=None, store=store)

"""Tests what both image stores promise, and the store in a local folder."""

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.disks import limited_files, small_disk
from tests.support.image_stores import DATA, UNKNOWN, image_names, locate
from tests.support.waiting import wait_until
from worker.errors import ImageExpired, ImageLost, ImageNotFound, StoreError
from worker.redis_io import server as redis_server
from worker.store.image_store import ImageStore, LocalImageStore
from worker.store.s3 import S3ImageStore


@pytest.fixture
def local(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ImageStore:
    if request.param == "local":
        return LocalImageStore(request.getfixturevalue("tmp_path") / "images")
    return S3ImageStore(request.getfixturevalue("bucket"))


# -- both stores -----------------------------------------------------------------------------


def test_an_image_is_named_by_its_content(store: ImageStore) -> None:
    name = store.put(DATA, "png")
    assert name == hashlib.sha256(DATA).hexdigest()[:40] + ".png"
    assert store.read(name) == DATA
    assert store.put(DATA, "png") == name
    other = store.put(DATA, "webp")
    assert other != name
    assert image_names(store) == sorted([name, other])


def test_a_large_image_comes_back_unchanged(store: ImageStore) -> None:
    data = os.urandom(7_000_000)
    assert store.read(store.put(data, "png")) == data


def test_only_the_user_can_read_folder_files_and_marks(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "images"
    before = os.umask(0)
    try:
        local = LocalImageStore(folder)
        local.probe()
        kept, removed = local.put(DATA, "png"), local.put(DATA, "webp")
        local.delete(removed)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in (kept, removed):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name


def test_a_folder_that_the_operator_made_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    LocalImageStore(tmp_path).put(DATA, "png")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_malformed_name_is_not_looked_up(store: ImageStore) -> None:
    names = [
        *("", "..", "../secret.png", "/etc/passwd"),
        *("a" * 40, "a" * 40 + ".gif", "A" * 40 + ".png", "a" * 40 + ".png\n"),
        *("a" * 40 + ".png/..", "a" * 39 + "\0.png"),
    ]
    for name in names:
        for look_up in (store.read, lambda text: locate(store, text)):
            with pytest.raises(ImageNotFound, match="40 hex digits"):
                look_up(name)
        assert store.age(name) is None
        store.delete(name)


def test_unknown_and_deleted_images_differ(store: ImageStore) -> None:
    for look_up in (store.read, lambda text: locate(store, text)):
        with pytest.raises(ImageNotFound):
            look_up(UNKNOWN)
    assert store.age(UNKNOWN) is None
    store.delete(UNKNOWN)
    name = store.put(DATA, "png")
    store.delete(name)
    for look_up in (store.read, lambda text: locate(store, text)):
        with pytest.raises(ImageExpired):
            look_up(name)
        with pytest.raises(ImageNotFound):
            look_up(UNKNOWN)
    assert image_names(store) == []
    assert store.age(name) is None
    assert store.put(DATA, "png") == name
    assert store.read(name) == DATA


def test_bad_input_is_refused(store: ImageStore) -> None:
    with pytest.raises(StoreError, match="gif"):
        store.put(DATA, "gif")
    with pytest.raises(StoreError, match="0 bytes"):
        store.put(b"", "png")
    assert image_names(store) == []


def test_checking_a_working_store_leaves_no_image(store: ImageStore) -> None:
    store.check()
    store.probe()
    assert image_names(store) == []


def test_old_marks_are_cleaned(store: ImageStore) -> None:
    kept, gone = store.put(b"kept", "png"), store.put(b"gone", "png")
    store.delete(gone)
    store.clean(marks_older_than=3600)
    with pytest.raises(ImageExpired):
        store.read(gone)
    store.clean(marks_older_than=-1)
    with pytest.raises(ImageNotFound):
        store.read(gone)
    assert image_names(store) == [kept]
    assert store.read(kept) == b"kept"


# -- a folder --------------------------------------------------------------------------------


def test_a_folder_gives_files(local: LocalImageStore) -> None:
    name = local.put(DATA, "png")
    place = locate(local, name)
    assert isinstance(place, Path)
    assert place == local.path(name)
    assert place.read_bytes() == DATA


def test_storing_an_image_again_resets_its_age(local: LocalImageStore) -> None:
    name = local.put(DATA, "png")
    past = time.time() - 86_400
    os.utime(local.path(name), (past, past))
    assert (local.age(name) or 0) > 80_000
    assert local.put(DATA, "png") == name
    [(_, age)] = local.list_images()
    assert age < 80_000
    assert (local.age(name) or 0) < 80_000


def test_leftovers_of_interrupted_writes_are_cleaned(
    local: LocalImageStore, tmp_path: Path
) -> None:
    kept = local.put(b"kept", "png")
    leftover = tmp_path / "images" / ".new-broken"
    leftover.write_bytes(b"half")
    local.clean(marks_older_than=3600)
    assert leftover.exists()
    os.utime(leftover, (time.time() - 4000, time.time() - 4000))
    local.clean(marks_older_than=3600)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [kept]


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    blocked = LocalImageStore(tmp_path / "file")
    (tmp_path / "file").write_text("in the way")
    for call in (lambda: blocked.put(DATA, "png"), blocked.check):
        with pytest.raises(StoreError):
            call()


def check_full(store: LocalImageStore, root: Path, old: str) -> None:
    """A full disk refuses an image, keeps nothing of it and damages no other."""
    with pytest.raises(StoreError, match="cannot write"):
        store.put(os.urandom(2_000_000), "png")
    with pytest.raises(StoreError, match="cannot write"):
        store.check()
    assert [path.name for path in root.iterdir()] == [old]
    assert store.read(old) == DATA


def test_a_quota_refuses_whole_images(local: LocalImageStore, tmp_path: Path) -> None:
    old = local.put(DATA, "png")
    with limited_files(500_000):
        check_full(local, tmp_path / "images", old)
    local.check()
    data = os.urandom(2_000_000)
    assert local.read(local.put(data, "png")) == data


def test_a_full_disk_refuses_whole_images(tmp_path: Path) -> None:
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


def _store_many(store: LocalImageStore) -> None:
    """Store images of 100 kB, more than fit on the disk."""
    for number in range(500):
        store.put(number.to_bytes(4) * 25_000, "png")


@pytest.mark.parametrize(
    ("options", "reason"),
    [("30m", "No space left but 1536 kB kept"), ("30m,nr_inodes=120", "No inodes left but 100")],
)
def test_images_leave_space_for_the_queue(options: str, reason: str, tmp_path: Path) -> None:
    """On a disk that both share, the queue goes on while images are refused."""
    disk = tmp_path / "disk"
    with small_disk(disk, options):
        store = LocalImageStore(disk / "images")
        with pytest.raises(StoreError, match=reason):
            _store_many(store)
        server = redis_server.start(disk / "redis")
        try:
            with Redis.from_url(server.url) as client:
                for number in range(100):
                    client.set(f"job {number}", bytes(5_000))
                client.bgrewriteaof()
                wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
                assert client.info("persistence")["aof_last_bgrewrite_status"] == "ok"
            with pytest.raises(StoreError, match=reason):
                store.check()
            for name, _ in list(store.list_images())[:30]:
                (disk / "images" / name).unlink()
            store.check()
        finally:
            server.stop()


@pytest.mark.parametrize("change", [b"pictur", b"Picture"])
def test_a_file_that_was_changed_is_lost(
    local: LocalImageStore, change: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    name = local.put(b"picture", "png")
    file = locate(local, name)
    assert isinstance(file, Path)
    file.write_bytes(change)
    for _ in range(2):
        with pytest.raises(ImageLost, match="damaged"):
            locate(local, name)
        with pytest.raises(ImageLost, match="damaged"):
            local.read(name)
    assert f"image={name} event=damaged" in caplog.text
    assert local.put(b"picture", "png") == name
    assert locate(local, name) == file


def test_a_file_is_hashed_once(local: LocalImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name, read, hashed = local.put(b"picture", "png"), hashlib.file_digest, []

    def counted(file: Any, kind: str) -> Any:
        hashed.append(kind)
        return read(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    for _ in range(3):
        locate(local, name)
    assert len(hashed) == 1

import hashlib
import os
import time
from pathlib import Path

import pytest

from worker.errors import ImageExpired, ImageNotFound, StoreError
from worker.store import LocalImageStore

DATA = b"a picture"


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images")


def test_a_picture_lies_under_the_name_of_its_content(store: LocalImageStore) -> None:
    name = store.put(DATA, "png")
    assert name == hashlib.sha256(DATA).hexdigest()[:40] + ".png"
    assert store.path(name).read_bytes() == DATA
    assert store.put(DATA, "png") == name
    assert store.put(DATA, "webp") != name
    assert sorted(store.names()) == sorted([name, store.put(DATA, "webp")])


def test_nothing_but_whole_pictures_is_ever_seen(
    store: LocalImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put(DATA, "png")
    monkeypatch.undo()
    assert list(store.names()) == []
    assert list(store.path(store.put(b"x", "png")).parent.glob(".new-*")) == []


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
def test_a_name_of_another_shape_is_never_looked_up(store: LocalImageStore, name: str) -> None:
    with pytest.raises(ImageNotFound):
        store.path(name)
    store.delete(name)


def test_unknown_and_deleted_pictures_differ(store: LocalImageStore) -> None:
    with pytest.raises(ImageNotFound):
        store.path("a" * 40 + ".png")
    name = store.put(DATA, "png")
    store.delete(name)
    with pytest.raises(ImageExpired):
        store.path(name)
    assert list(store.names()) == []
    assert store.put(DATA, "png") == name
    assert store.path(name).read_bytes() == DATA


def test_old_marks_and_leftovers_are_cleaned(store: LocalImageStore, tmp_path: Path) -> None:
    kept, gone = store.put(b"kept", "png"), store.put(b"gone", "png")
    store.delete(gone)
    leftover = tmp_path / "images" / ".new-broken"
    leftover.write_bytes(b"half")
    store.clean(marks_older_than=60)
    assert leftover.exists()
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (time.time() - 100, time.time() - 100))
    store.clean(marks_older_than=60)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [kept]
    with pytest.raises(ImageNotFound):
        store.path(gone)


def test_bad_input_is_refused(store: LocalImageStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gif"):
        store.put(DATA, "gif")
    with pytest.raises(StoreError, match="0 bytes"):
        store.put(b"", "png")
    blocked = LocalImageStore(tmp_path / "file")
    (tmp_path / "file").write_text("in the way")
    for call in (lambda: blocked.put(DATA, "png"), blocked.check):
        with pytest.raises(StoreError):
            call()
    store.check()

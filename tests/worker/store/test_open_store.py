"""Tests which store the settings open."""

from pathlib import Path

import pytest

from tests.support.image_stores import DATA, locate
from tests.support.s3_server import BUCKET, KEY, SECRET, S3Server
from worker.settings import Settings
from worker.store.open_store import make_data_folder, open_store


def test_the_settings_choose_the_store(s3_server: S3Server, tmp_path: Path) -> None:
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


def test_keys_may_come_from_the_aws_variables(
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
    with pytest.raises(ValueError, match="belong together") as raised:
        open_store(settings)
    assert "half" not in str(raised.value)


@pytest.mark.parametrize("store", ["s3:/x", "s3://", "s3://Bucket", "gs://b", "s3://b/../c d"])
def test_other_stores_are_refused(store: str) -> None:
    with pytest.raises(ValueError, match="store"):
        Settings(_env_file=None, store=store)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "http://user:hid/den@127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_S3", "http://user:hid/den@127.0.0.1:1"),
        ("AWS_REGION", "hid den"),
        ("AWS_ACCESS_KEY_ID", "hidden\u00f6"),
        ("AWS_SECRET_ACCESS_KEY", "hidden\r"),
    ],
)
def test_a_wrong_aws_variable_is_named_and_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library of the bucket would panic at the first request."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name} ") as raised:
        open_store(Settings(_env_file=None, store="s3://bucket"))
    assert "hid" not in str(raised.value)


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (Path("/proc/nope"), tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(ValueError, match=f"^KIRAZURI_DATA_DIR: {folder} cannot be made a"):
            make_data_folder(Settings(_env_file=None, data_dir=folder))
        make_data_folder(Settings(_env_file=None, data_dir=folder, store="s3://bucket"))
    make_data_folder(Settings(_env_file=None, data_dir=tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()

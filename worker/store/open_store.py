"""Opens the image store that the settings name. Imports no other one."""

import os
from collections.abc import Callable, Mapping

from pydantic import SecretStr

from worker.setting_values import check_key, check_region, check_url
from worker.settings import Settings
from worker.store.image_store import ImageStore, LocalImageStore

IMAGES_FOLDER = "images"
"""Below `data_dir`, the same for API and workers."""

_AWS_VARIABLES: Mapping[str, Callable[[str], object]] = {
    **dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"), check_url),
    **dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), check_region),
    **dict.fromkeys(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        lambda key: check_key(SecretStr(key)),
    ),
}


def open_store(settings: Settings) -> ImageStore:
    """A folder below `data_dir`, or a bucket; nothing is read or written yet.

    Raises:
        ValueError: the settings do not fit together, or an `AWS_*` variable is wrong.
    """
    if settings.store == "local":
        return LocalImageStore(settings.data_dir / IMAGES_FOLDER)
    _check_aws_variables()
    from worker.store.s3 import Bucket, S3ImageStore

    name, _, prefix = settings.store.removeprefix("s3://").partition("/")
    key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    if (key is None) != (secret is None):
        # Not a validation of the settings, whose error message would show the secret.
        raise ValueError(
            "KIRAZURI_S3_ACCESS_KEY_ID and KIRAZURI_S3_SECRET_ACCESS_KEY belong together"
        )
    bucket = Bucket(
        name,
        prefix.strip("/"),
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        region=settings.s3_region,
        access_key_id=key.get_secret_value() if key else None,
        secret_access_key=secret.get_secret_value() if secret else None,
    )
    return S3ImageStore(bucket, signed_seconds=settings.signed_url_seconds)


def make_data_folder(settings: Settings) -> None:
    """Make the data folder if it is not there and the images will be in it.

    Raises:
        ValueError: it cannot be made.
    """
    if settings.store != "local":
        return
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        reason = f"{settings.data_dir} cannot be made a folder: {exc.strerror}"
        raise ValueError(f"KIRAZURI_DATA_DIR: {reason}") from exc


def _check_aws_variables() -> None:
    """Check what the library of the bucket reads by itself, and would stumble over later."""
    for name, check in _AWS_VARIABLES.items():
        if value := os.environ.get(name):  # noqa: TID251 - not our settings
            try:
                check(value)
            except ValueError as exc:
                raise ValueError(f"{name} {exc}") from None

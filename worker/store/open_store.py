"""Opens the image store that the settings name. Imports no other one."""

from worker.settings import Settings
from worker.store.image_store import ImageStore, LocalImageStore

IMAGES_FOLDER = "images"
"""Below `data_dir`, the same for API and workers."""


def open_store(settings: Settings) -> ImageStore:
    """A folder below `data_dir`, or a bucket; nothing is read or written yet.

    Raises:
        ValueError: the settings do not fit together.
    """
    if settings.store == "local":
        return LocalImageStore(settings.data_dir / IMAGES_FOLDER)
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

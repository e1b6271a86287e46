"""Jobs of a worker that signs images: published files, comparisons, failures."""

import hashlib
from pathlib import Path

import pytest

from model.request import ImageFormat, MetadataLevel
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from worker.images.c2pa_manifest import C2paReader
from worker.images.c2pa_signer import open_signer
from worker.images.signing import SigningError
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.settings import Settings
from worker.store.image_store import LocalImageStore


@pytest.fixture
def signing(settings: Settings, authority: Path) -> Settings:
    files = {"c2pa_certificate": authority / "certificate.pem", "c2pa_key": authority / "key.pem"}
    return settings.model_copy(update=files)


async def run_job(queue: JobQueue, metadata: MetadataLevel = "full") -> Job:
    request = make_request(num_images=2, metadata=metadata, deterministic=True)
    return await queue.wait((await queue.admit(request)).id, 60)


async def test_signed_images_are_compared_by_their_unsigned_files(
    queue: JobQueue, run_worker: RunWorker, signing: Settings
) -> None:
    """This includes originals that were made before the service signed images."""
    store, reader = LocalImageStore(signing.data_dir / "images"), C2paReader(signing)
    with run_worker():
        plain = await run_job(queue)
    with run_worker(signer=open_signer(signing, service="test 1.0")):
        first, second = await run_job(queue), await run_job(queue)
        replays = [await queue.wait((await queue.replay(job.id)).id, 60) for job in (plain, first)]
    for job in (first, second, *replays):
        for image, before in zip(job.images, plain.images, strict=True):
            data = store.read(image.name)
            assert image.sha256 == hashlib.sha256(data).hexdigest()
            assert image.bytes == len(data)
            assert (image.unsigned_sha256, before.unsigned_sha256) == (before.sha256, None)
            assert image.fingerprint == before.fingerprint
            assert reader.read(data, "png").state == "valid"
            assert reader.read(store.read(before.name), "png").state == "none"
    assert first.images[0].sha256 != second.images[0].sha256
    assert [job.matches for job in replays] == [True, True]


async def test_images_without_metadata_are_not_signed(
    queue: JobQueue, run_worker: RunWorker, signing: Settings
) -> None:
    store, reader = LocalImageStore(signing.data_dir / "images"), C2paReader(signing)
    with run_worker(signer=open_signer(signing, service="test 1.0")):
        minimal, none = await run_job(queue, "minimal"), await run_job(queue, "none")
    for job, state in ((minimal, "valid"), (none, "none")):
        assert reader.read(store.read(job.images[0].name), "png").state == state
    assert none.images[0].unsigned_sha256 is None


async def test_an_image_that_cannot_be_signed_fails_its_job_and_is_not_stored(
    queue: JobQueue, run_worker: RunWorker, signing: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def expired(data: bytes, image_format: ImageFormat, source_type: str) -> bytes:
        raise SigningError("the certificate is over")

    with run_worker(signer=expired):
        job = await run_job(queue)
        fine = await run_job(queue, "none")
    assert (job.status, job.images, job.attempts) == ("failed", (), 1)
    assert job.error is not None
    assert job.error.code == "signing"
    assert "certificate is over" in caplog.text
    assert "certificate" not in job.error.detail
    kept = [name for name, _ in LocalImageStore(signing.data_dir / "images").list_images()]
    assert sorted(kept) == sorted(image.name for image in fine.images)

"""The output filter checks images before they are stored; refused images are not stored."""

from importlib.metadata import EntryPoint
from typing import Any

import numpy
import pytest

from model.resolved_request import ResolvedRequest
from tests.support.fake_engine import pixels
from tests.support.queue_steps import follow_events
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from worker.images import output_filter
from worker.images.input_images import Pixels
from worker.images.output_filter import OutputFilterFailed, OutputRefused, check_output, open_filter
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.settings import Settings
from worker.store.image_store import LocalImageStore


class RefusesSeed:
    """Refuses the image of one seed by its pixels."""

    def __init__(self, seed: int) -> None:
        self._unwanted = pixels(make_request(seed=seed), 0)
        self.seen: list[tuple[tuple[int, ...], str, bool, str]] = []

    def __call__(self, image: Pixels, request: ResolvedRequest) -> str | None:
        seen = image.shape, str(image.dtype), image.flags.writeable, request.prompt
        self.seen.append(seen)
        return "not this one" if numpy.array_equal(image, self._unwanted) else None


def broken(_: Pixels, __: ResolvedRequest) -> str | None:
    raise RuntimeError("secret of the filter")


def factory() -> RefusesSeed:
    return RefusesSeed(7)


async def run(queue: JobQueue, **changes: Any) -> Job:
    return await queue.wait((await queue.admit(make_request(**changes))).id, 60)


def kept(settings: Settings) -> list[str]:
    return sorted(name for name, _ in LocalImageStore(settings.data_dir / "images").list_images())


async def test_a_refused_image_fails_its_job_and_is_not_stored(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    chosen = RefusesSeed(7)
    with run_worker(output_filter=chosen):
        refused, fine = await run(queue, seed=7), await run(queue, seed=8)
    assert (refused.status, refused.images, refused.attempts) == ("failed", (), 1)
    assert refused.error is not None
    assert (refused.error.code, refused.error.status) == ("output_refused", 403)
    assert refused.error.detail == "not this one"
    assert fine.status == "succeeded"
    assert kept(settings) == [image.name for image in fine.images]
    assert chosen.seen == [((64, 64, 3), "uint8", False, "1girl, smile")] * 2


async def test_one_refused_image_fails_a_job_of_several(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    with run_worker(output_filter=RefusesSeed(7)):
        job = await run(queue, seed=6, num_images=3)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "output_refused"
    assert len(kept(settings)) == 2


def test_any_other_answer_is_a_failure() -> None:
    for answer in (False, True, 0, b"no", ["reason"]):
        with pytest.raises(OutputFilterFailed, match="None nor a reason"):
            check_output(
                lambda *_, answer=answer: answer, pixels(make_request(), 0), make_request()
            )


def test_reasons_are_cut_and_never_empty() -> None:
    for answer, reason in (("", "no reason given"), ("x" * 300, "x" * 200)):
        with pytest.raises(OutputRefused) as refusal:
            check_output(
                lambda *_, answer=answer: answer, pixels(make_request(), 0), make_request()
            )
        assert str(refusal.value) == reason


async def test_a_broken_filter_passes_no_image(
    queue: JobQueue,
    run_worker: RunWorker,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with run_worker(output_filter=broken):
        job = await run(queue)
    assert (job.status, job.images, job.attempts) == ("failed", (), 1)
    assert job.error is not None
    assert job.error.code == "filter_broken"
    assert "secret" not in job.error.detail
    assert "secret of the filter" in caplog.text
    assert kept(settings) == []


async def test_a_filter_turns_previews_off(queue: JobQueue, run_worker: RunWorker) -> None:
    async def kinds(job: Job) -> set[str]:
        return {event.event async for event in follow_events(queue, job.id)}

    with run_worker():
        shown = await kinds(await run(queue, previews=True))
    with run_worker(output_filter=RefusesSeed(7)):
        hidden = await kinds(await run(queue, previews=True))
    assert shown - hidden == {"preview"}


def test_a_filter_is_found_by_path_or_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{__name__}:factory"
    assert isinstance(open_filter(path), RefusesSeed)
    point = EntryPoint(name="mine", value=path, group=output_filter.ENTRY_POINTS)
    monkeypatch.setattr(output_filter, "entry_points", lambda **_: [point])
    assert isinstance(open_filter("mine"), RefusesSeed)


def test_an_invalid_filter_ends_the_start() -> None:
    names = [
        "no_such_module:x",
        f"{__name__}:nothing",
        f"{__name__}:broken",
        "builtins:list",
        "a b",
    ]
    for name in names:
        with pytest.raises(ValueError, match="output filter"):
            open_filter(name)

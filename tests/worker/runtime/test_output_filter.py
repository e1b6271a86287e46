"""A filter looks at pictures before anybody else; what it does not let pass is never stored."""

from importlib.metadata import EntryPoint
from typing import Any

import numpy
import pytest

from model.resolved_request import ResolvedRequest
from tests.support.fake_engine import pixels
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker
from worker.images import output_filter
from worker.images.input_images import Pixels
from worker.images.output_filter import OutputFilterFailed, OutputRefused, check_output, open_filter
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.settings import Settings
from worker.store.image_store import LocalImageStore


class NoSeedOf:
    """Refuses the picture of one seed by what is in it."""

    def __init__(self, seed: int) -> None:
        self._unwanted = pixels(make_request(seed=seed), 0)
        self.seen: list[tuple[tuple[int, ...], str, bool, str]] = []

    def __call__(self, picture: Pixels, request: ResolvedRequest) -> str | None:
        about = picture.shape, str(picture.dtype), picture.flags.writeable, request.prompt
        self.seen.append(about)
        return "not this one" if numpy.array_equal(picture, self._unwanted) else None


def broken(_: Pixels, __: ResolvedRequest) -> str | None:
    raise RuntimeError("secret of the filter")


def made() -> NoSeedOf:
    return NoSeedOf(7)


async def run(queue: JobQueue, **changes: Any) -> Job:
    return await queue.wait((await queue.admit(make_request(**changes))).id, 10)


def kept(settings: Settings) -> list[str]:
    return sorted(name for name, _ in LocalImageStore(settings.data_dir / "images").list_images())


async def test_a_refused_picture_fails_its_job_and_is_not_stored(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    chosen = NoSeedOf(7)
    with run_worker(output_filter=chosen):
        refused, fine = await run(queue, seed=7), await run(queue, seed=8)
    assert (refused.status, refused.images, refused.attempts) == ("failed", (), 1)
    assert refused.error is not None
    assert (refused.error.code, refused.error.status) == ("output_refused", 403)
    assert refused.error.detail == "not this one"
    assert fine.status == "succeeded"
    assert kept(settings) == [image.name for image in fine.images]
    assert chosen.seen == [((64, 64, 3), "uint8", False, "1girl, smile")] * 2


async def test_one_refused_picture_fails_a_job_of_several(
    queue: JobQueue, run_worker: RunWorker, settings: Settings
) -> None:
    with run_worker(output_filter=NoSeedOf(7)):
        job = await run(queue, seed=6, num_images=3)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "output_refused"
    assert len(kept(settings)) == 2


@pytest.mark.parametrize("answer", [False, True, 0, b"no", ["reason"]])
def test_any_other_answer_closes(answer: Any) -> None:
    with pytest.raises(OutputFilterFailed, match="neither None nor a reason"):
        check_output(lambda *_: answer, pixels(make_request(), 0), make_request())


@pytest.mark.parametrize(("answer", "told"), [("", "no reason given"), ("x" * 300, "x" * 200)])
def test_reasons_have_a_length(answer: str, told: str) -> None:
    with pytest.raises(OutputRefused) as refusal:
        check_output(lambda *_: answer, pixels(make_request(), 0), make_request())
    assert str(refusal.value) == told


async def test_a_broken_filter_lets_nothing_pass(
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


async def test_there_are_no_previews_that_nobody_looked_at(
    queue: JobQueue, run_worker: RunWorker
) -> None:
    async def kinds(job: Job) -> set[str]:
        return {event.event async for event in queue.events(job.id)}

    with run_worker():
        shown = await kinds(await run(queue, previews=True))
    with run_worker(output_filter=NoSeedOf(7)):
        hidden = await kinds(await run(queue, previews=True))
    assert shown - hidden == {"preview"}


def test_a_filter_is_found_by_path_or_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{__name__}:made"
    assert isinstance(open_filter(path), NoSeedOf)
    point = EntryPoint(name="mine", value=path, group=output_filter.ENTRY_POINTS)
    monkeypatch.setattr(output_filter, "entry_points", lambda **_: [point])
    assert isinstance(open_filter("mine"), NoSeedOf)


@pytest.mark.parametrize(
    "name",
    ["no_such_module:x", f"{__name__}:nothing", f"{__name__}:broken", "builtins:list", "a b"],
)
def test_what_is_no_filter_ends_the_start(name: str) -> None:
    with pytest.raises(ValueError, match="output filter"):
        open_filter(name)

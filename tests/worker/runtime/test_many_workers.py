"""Several workers beside each other: suspects that run alone, and workers of other checkpoints."""

from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from model.engine.protocol import EngineEvent
from tests.support.fake_engine import FakeEngine
from tests.support.queue_steps import maintain, take
from tests.support.requests import make_request
from tests.support.run_worker import RunWorker, await_heartbeats
from tests.support.waiting import async_wait_until
from worker.job import Job
from worker.queue.job_queue import JobQueue
from worker.queue.worker_queue import WorkerQueue
from worker.runtime.batch_worker import BatchWorker
from worker.settings import Settings


async def lose(queue: JobQueue, worker_queue: WorkerQueue, times: int) -> Job:
    """A job whose workers were lost so many times."""
    job = await queue.admit(make_request("suspect", seed=99))
    for number in range(times):
        take(worker_queue, job.id, f"lost {number}", lease=-1)
    maintain(worker_queue)
    return job


async def test_a_suspect_waits_for_one_worker_and_the_others_pass_it_over(
    queue: JobQueue, worker_queue: WorkerQueue, run_worker: RunWorker, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    alone: list[bool] = []

    class KeepsLongJobs(FakeEngine):
        """Steps of long jobs do not end before `go` exists; other jobs pass them."""

        def _advance(self, job_id: str) -> list[EngineEvent]:
            request, _ = self._running[job_id]
            if request.prompt == "suspect":
                alone.append(len(self._running) == 1)
            is_kept = request.prompt == "long" and not go.exists()
            return [] if is_kept else super()._advance(job_id)

    def let_take(worker: BatchWorker, places: int) -> None:
        worker._settings = worker._settings.model_copy(update={"max_running": places})

    with ExitStack() as stack:
        workers = [stack.enter_context(run_worker(kind=KeepsLongJobs)) for _ in range(3)]
        for worker in workers:
            let_take(worker, 0)
        for number, worker in enumerate(workers):
            long = await queue.admit(make_request("long", seed=number))
            let_take(worker, 1)
            await async_wait_until(lambda: worker.slots)  # noqa: B023
            let_take(worker, 0)
        suspect = await lose(queue, worker_queue, 2)
        for worker in workers:
            let_take(worker, 8)
        short = [await queue.admit(make_request(seed=10 + seed)) for seed in range(6)]
        for job in short:
            assert (await queue.wait(job.id, 30)).status == "succeeded"
        assert alone == []
        go.touch()
        assert (await queue.wait(suspect.id, 60)).status == "succeeded"
        assert (await queue.wait(long.id, 60)).status == "succeeded"
    assert set(alone) == {True}
    assert (await queue.get(suspect.id)).attempts == 3


async def test_each_worker_takes_the_jobs_of_its_checkpoint_only(
    redis_url: str, settings: Settings, run_worker: RunWorker
) -> None:
    async with AsyncExitStack() as stack:
        queues = {}
        for card in "abc":
            queues[card] = JobQueue(redis_url, settings, checkpoint=(card, ""))
            stack.push_async_callback(queues[card].close)
        jobs = [
            (card, await queues[card].admit(make_request(seed=seed)))
            for seed in range(8)
            for card in "cab"
        ]
        with run_worker(card="a"), run_worker(card="b"):
            for card, job in jobs:
                if card != "c":
                    done = await queues[card].wait(job.id, 60)
                    assert done.status == "succeeded"
                    assert done.recipe is not None
                    assert done.recipe.card == card
        waiting = [await queues["c"].get(job.id) for card, job in jobs if card == "c"]
        assert [job.status for job in waiting] == ["queued"] * 8
        assert [job.queue_position for job in waiting] == list(range(8))
        with run_worker(card="c"):
            for job in waiting:
                assert (await queues["c"].wait(job.id, 60)).status == "succeeded"


async def test_a_worker_leaves_jobs_of_another_file_of_the_same_card(
    redis_url: str, settings: Settings, run_worker: RunWorker
) -> None:
    """The fake engine's file has the hash 000…; only the card's own statement counts before it."""
    async with AsyncExitStack() as stack:
        other, own, old = [
            JobQueue(redis_url, settings, checkpoint=checkpoint)
            for checkpoint in (("fake", "1" * 64), ("fake", "0" * 64), ("", ""))
        ]
        for queue in (other, own, old):
            stack.push_async_callback(queue.close)
        jobs = [await queue.admit(make_request()) for queue in (other, own, old)]
        with run_worker():
            for queue, job in ((own, jobs[1]), (old, jobs[2])):
                assert (await queue.wait(job.id, 60)).status == "succeeded"
            await await_heartbeats(own)
            assert (await other.get(jobs[0].id)).status == "queued"

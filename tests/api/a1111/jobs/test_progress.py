"""`progress`, `interrupt` and `skip` for the jobs of one client."""

import base64
from collections.abc import Callable

import httpx2

from tests.support.a1111_clients import (
    FILE,
    index_score,
    is_idle,
    read_a1111_error,
    read_progress,
)
from tests.support.manual_worker import ManualWorker
from tests.support.pending_call import PendingCall
from tests.support.waiting import wait_until

StartCall = Callable[..., tuple[PendingCall, str]]


def _status(client: httpx2.Client, job_id: str) -> str:
    return str(client.get(f"/jobs/{job_id}").json()["status"])


def test_progress_follows_the_job(
    client: httpx2.Client, worker: ManualWorker, start_call: StartCall
) -> None:
    assert is_idle(read_progress(client))
    call, job_id = start_call(steps=20)
    progress = read_progress(client)
    assert (progress["progress"], progress["state"]["job_count"]) == (0, 1)
    assert (progress["current_task"], progress["textinfo"]) == (job_id, "0 jobs ahead")
    worker.claim(job_id)
    worker.step(job_id, 5, 20)
    for step, preview in ((4, b"older"), (5, b"newer")):
        image = "data:image/webp;base64," + base64.b64encode(preview).decode()
        worker.report(job_id, "preview", {"image": image, "step": step, "index": 0})
    worker.report(job_id, "preview", {"as": "another release writes it"})
    worker.step(job_id, 6, 20)
    progress = read_progress(client)
    assert progress["progress"] == 0.3
    assert (progress["state"]["sampling_step"], progress["state"]["sampling_steps"]) == (6, 20)
    assert base64.b64decode(progress["current_image"]) == b"newer"
    assert progress["textinfo"] is None
    without = client.get("/sdapi/v1/progress?skip_current_image=true").json()
    assert without["current_image"] is None
    assert client.get(f"/jobs/{job_id}").json()["request"]["previews"] is True
    worker.finish(job_id, FILE)
    call.response()
    assert is_idle(read_progress(client))


def test_interrupt_and_skip_cancel_the_oldest_job(
    client: httpx2.Client, worker: ManualWorker, start_call: StartCall
) -> None:
    first, older = start_call()
    _, newer = start_call()
    progress = read_progress(client)
    assert (progress["state"]["job_count"], progress["current_task"]) == (2, older)
    client.post("/sdapi/v1/interrupt")
    assert read_a1111_error(first.response(), 409, "job_cancelled")["job_id"] == older
    assert _status(client, newer) == "queued"
    assert read_progress(client)["current_task"] == newer
    client.post("/sdapi/v1/skip")
    assert _status(client, newer) == "cancelled"
    assert is_idle(read_progress(client))
    assert worker.queued_ids() == []


def test_interrupt_prefers_the_job_of_a_disconnected_caller(
    client: httpx2.Client, worker: ManualWorker, start_call: StartCall
) -> None:
    """SillyTavern interrupts and drops the call of the user who leaves at the same time."""
    _, older = start_call()
    second, newer = start_call()
    _, newest = start_call()
    for job_id in (older, newer, newest):
        worker.claim(job_id)
        worker.step(job_id, 1, 20)
    second.disconnect()
    wait_until(lambda: (index_score(worker.redis, newer) or 0) < 0)
    assert read_progress(client)["current_task"] == older
    client.post("/sdapi/v1/interrupt")
    steps = {job_id: worker.step(job_id, 2, 20) for job_id in (older, newer, newest)}
    assert steps == {older: "ok", newer: "cancel", newest: "ok"}


def test_disconnecting_cancels_nothing(
    client: httpx2.Client, worker: ManualWorker, start_call: StartCall
) -> None:
    call, job_id = start_call()
    call.disconnect()
    wait_until(lambda: (index_score(worker.redis, job_id) or 0) < 0)
    assert _status(client, job_id) == "queued"
    assert read_progress(client)["current_task"] == job_id
    worker.claim(job_id)
    worker.finish(job_id, FILE)
    assert is_idle(read_progress(client))

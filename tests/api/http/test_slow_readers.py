"""Event streams whose clients stop reading cost little memory and delay no others."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.api_calls import parse_events, submit_job
from tests.support.api_process import ApiProcess, read_to_end
from tests.support.manual_worker import ManualWorker
from tests.support.waiting import wait_until
from worker.queue.layout import redis_keys
from worker.settings import Settings

SLOW, EVENTS, EVENT_BYTES = 20, 300, 8_000
MOST_BYTES_EACH = 250_000
"""A tenth of the events of one stream; half of it is uvicorn's buffer."""


@pytest.fixture(scope="module")
def api(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    process = ApiProcess(settings, Path(tmp_path_factory.mktemp("api") / "log"))
    try:
        yield process
    finally:
        process.stop()


def test_clients_that_stop_reading(api: ApiProcess, redis_url: str, worker: ManualWorker) -> None:
    with ExitStack() as stack:

        def open_slow() -> list[socket.socket]:
            made = [api.listen(job_id, receive_bytes=4096) for _ in range(SLOW)]
            return [stack.enter_context(listener) for listener in made]

        job_id = submit_job(api.client)
        worker.claim(job_id)
        slow = open_slow()
        fast = stack.enter_context(api.listen(job_id, receive_bytes=2**20))
        wait_until(lambda: api.streams() == SLOW + 1)
        before = api.resident_bytes()
        for number in range(EVENTS):
            data = {"image": "x" * EVENT_BYTES, "step": number, "index": 0}
            assert worker.report(job_id, "preview", data) == "ok"
        # Streams that open later get all events too.
        open_slow()
        wait_until(lambda: api.streams() == 2 * SLOW + 1)
        worker.finish(job_id, b"picture")

        events = parse_events(read_to_end(fast))
        assert [event["event"] for event in events[:2]] == ["queued", "started"]
        assert [event["data"]["step"] for event in events[2:-1]] == list(range(EVENTS))
        assert events[-1]["event"] == "succeeded"
        assert api.streams() == 2 * SLOW
        grown = api.resident_bytes() - before
        assert grown < 2 * SLOW * MOST_BYTES_EACH
        assert api.client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"

        # A client that continues to read has missed nothing while Redis keeps all events.
        assert parse_events(read_to_end(slow[0])) == events
        # If most events have been trimmed, there is a gap.
        worker.redis.xtrim(redis_keys.events_key(job_id), maxlen=3, approximate=False)
        late = parse_events(read_to_end(slow[1]))
        assert late[-4]["event"] == "gap"
        assert late[-3:] == events[-3:]
        assert late[:-4] == events[: len(late) - 4]
        # If even the last event is gone, it comes from the job's record.
        worker.redis.delete(redis_keys.events_key(job_id))
        last = parse_events(read_to_end(slow[2]))
        assert last[-2]["event"] == "gap"
        assert last[-1] == events[-1]
    wait_until(lambda: api.streams() == 0)
    assert "Traceback" not in api.log.read_text()


def test_disconnect_of_a_client_that_stopped_reading(
    api: ApiProcess, redis_url: str, worker: ManualWorker
) -> None:
    job_id = submit_job(api.client)
    worker.claim(job_id)
    query = "?cancel_on_disconnect=true"
    with api.listen(job_id, receive_bytes=4096, query=query):
        wait_until(lambda: api.streams() == 1)
        for number in range(40):
            worker.report(job_id, "preview", {"image": "x" * EVENT_BYTES, "step": number})
    wait_until(lambda: worker.step(job_id, 1, 20) == "cancel")
    wait_until(lambda: api.streams() == 0)

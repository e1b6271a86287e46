"""Fixtures: an API without keys, and calls that wait in the background."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.a1111_clients import TXT2IMG, index_score
from tests.support.api_server import ApiServer
from tests.support.manual_worker import ManualWorker
from tests.support.pending_call import PendingCall
from tests.support.waiting import wait_until
from worker.settings import Settings


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "off"})


@pytest.fixture
def start_call(
    server: ApiServer, worker: ManualWorker
) -> Iterator[Callable[..., tuple[PendingCall, str]]]:
    """Starts a `txt2img` call and waits until its job is queued; returns the call and the job id.

    Also waits until the job is listed as one of the client's own, unless `is_anonymous`.
    """
    calls: list[PendingCall] = []

    def start(
        headers: dict[str, str] | None = None, *, is_anonymous: bool = False, **body: Any
    ) -> tuple[PendingCall, str]:
        known = set(worker.queued_ids())
        call = PendingCall(server.url, TXT2IMG, {"prompt": "1girl", **body}, headers or {})
        calls.append(call)
        wait_until(lambda: set(worker.queued_ids()) - known)
        (job_id,) = set(worker.queued_ids()) - known
        if not is_anonymous:
            wait_until(lambda: index_score(worker.redis, job_id) is not None)
        return call, job_id

    yield start
    for call in calls:
        call.disconnect()

"""Fills the queue through its admission script, many jobs in one round trip."""

import itertools
from collections.abc import Sequence

from ulid import ULID

from cli.bench.measured_service import MeasuredService
from cli.bench.prompts import prompt
from worker.queue.layout.record import new_record
from worker.queue.scripts.admission import admit_arguments
from worker.queue.scripts.lua_script import LuaScript

_BATCH = 500


def fill(service: MeasuredService, count: int, *, owners: int) -> list[str]:
    """Queue `count` jobs of the first `owners` owners in turn; the ids of the first owner's."""
    admit = LuaScript(service.client, "admit")
    ids_of_first_owner = []
    numbers = iter(range(count))
    while batch := list(itertools.islice(numbers, _BATCH)):
        pipeline = service.client.pipeline(transaction=False)
        for number in batch:
            owner, job_id = number % owners, str(ULID())
            request = service.template.model_copy(update={"prompt": prompt(number), "seed": number})
            record = new_record(
                request, warnings=(), traceparent=None, owner=service.owners[owner].id
            )
            admit(job_id, *admit_arguments(record, service.settings), client=pipeline)
            if owner == 0:
                ids_of_first_owner.append(job_id)
        _check(pipeline.execute())
    return ids_of_first_owner


def _check(replies: Sequence[Sequence[bytes]]) -> None:
    refused = {reply[0] for reply in replies} - {b"admitted"}
    if refused:
        raise RuntimeError(f"the queue refused jobs: {refused}")

"""Identifies A1111 clients, which know no job ids, and finds the unfinished jobs of each.

With an API key, the client is the owner of the key. Without one, it is the address of the caller
together with the name and password it sends, if any. These are not checked, only compared.
"""

import hashlib
from typing import Annotated

from fastapi import Depends, Request

from api.auth.caller import client_address
from api.submit.dependencies import CurrentCaller, Queue
from worker.errors import JobExpired, JobNotFound
from worker.job import TERMINAL, Job
from worker.queue.client_index import ClientIndex
from worker.queue.job_queue import JobQueue


class ClientIdentity:
    """A client and its jobs. `jobs` is None if the client cannot be told apart from others."""

    def __init__(self, queue: JobQueue, jobs: ClientIndex | None) -> None:
        self._queue = queue
        self.jobs = jobs

    async def unfinished(self) -> list[tuple[Job, bool]]:
        """The unfinished jobs, oldest first, each with whether its caller has disconnected."""
        if self.jobs is None:
            return []
        found, ended = [], []
        for job_id, is_abandoned in await self.jobs.jobs():
            try:
                job = await self._queue.get(job_id)
            except (JobNotFound, JobExpired):
                ended.append(job_id)
                continue
            if job.status in TERMINAL:
                ended.append(job_id)
            else:
                found.append((job, is_abandoned))
        await self.jobs.remove(*ended)
        return found


def client_name(request: Request, owner: str) -> str | None:
    """The name of the client in the job index; None if it cannot be told apart from others.

    The name is a digest, so that neither user names nor passwords are stored.
    """
    credentials = request.headers.get("authorization", "")
    parts: list[str] | None = None
    if owner:
        parts = [owner, credentials]
    elif (address := client_address(request)) is not None:
        parts = ["", credentials, address]
    elif len(credentials) > len("Basic ") + 4:  # longer than an empty name and password
        parts = ["", credentials]
    if parts is None:
        return None
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


async def _client(request: Request, caller: CurrentCaller, queue: Queue) -> ClientIdentity:
    name = client_name(request, caller.owner)
    return ClientIdentity(queue, queue.client_index(name) if name else None)


CurrentClient = Annotated[ClientIdentity, Depends(_client)]
"""The client that sent the current request."""

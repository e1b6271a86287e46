"""Who calls the A1111 surface, whose clients know no job ids: what is theirs to see and to stop.

With a key it is the key's holder. On an open service it is the address that the call comes from,
with the name and password that it brings, if any, which are not checked but tell two apart.
"""

import hashlib
from typing import Annotated

from fastapi import Depends, Request

from api.submit.dependencies import CurrentCaller, Queue
from worker.errors import JobExpired, JobNotFound
from worker.job import TERMINAL, Job
from worker.queue.client_index import ClientIndex
from worker.queue.job_queue import JobQueue


class ClientIdentity:
    """A client and its jobs; one that cannot be told from others has none."""

    def __init__(self, queue: JobQueue, jobs: ClientIndex | None) -> None:
        self._queue = queue
        self.jobs = jobs

    async def unfinished(self) -> list[tuple[Job, bool]]:
        """The jobs that have not ended, oldest first, and whether their caller has hung up."""
        if self.jobs is None:
            return []
        found, ended = [], []
        for job_id, has_left in await self.jobs.listed():
            try:
                job = await self._queue.get(job_id)
            except (JobNotFound, JobExpired):
                ended.append(job_id)
                continue
            if job.status in TERMINAL:
                ended.append(job_id)
            else:
                found.append((job, has_left))
        await self.jobs.forget(*ended)
        return found


def _own_address(request: Request) -> str | None:
    """Where the client is; None where a proxy that is not trusted stands between.

    A trusted proxy's word is in `request.client` already.
    """
    if request.client is None:
        return None
    host, headers = request.client.host, request.headers
    if "x-forwarded-for" in headers:
        is_told = host in [part.strip() for part in headers["x-forwarded-for"].split(",")]
    else:
        is_told = not any(name in headers for name in ("forwarded", "x-real-ip", "via"))
    return host if is_told else None


def client_name(request: Request, owner: str) -> str | None:
    """What this client's jobs are kept under; None where it is like any other.

    It is a digest: neither names nor passwords are kept.
    """
    words = request.headers.get("authorization", "")
    parts: list[str] | None = None
    if owner:
        parts = [owner, words]
    elif (address := _own_address(request)) is not None:
        parts = ["", words, address]
    elif len(words) > len("Basic ") + 4:  # more than an empty name and an empty password
        parts = ["", words]
    if parts is None:
        return None
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


async def _visitor(request: Request, caller: CurrentCaller, queue: Queue) -> ClientIdentity:
    name = client_name(request, caller.owner)
    return ClientIdentity(queue, queue.jobs_of(name) if name else None)


CurrentVisitor = Annotated[ClientIdentity, Depends(_visitor)]
"""The client of this exchange, with its own jobs."""

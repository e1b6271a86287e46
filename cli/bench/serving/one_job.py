"""One job as a client sees it: submitted, followed by its events, perhaps cancelled."""

import json
import time
from dataclasses import dataclass
from typing import Any

import httpx2

_ENDS = (b"succeeded", b"failed", b"cancelled")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds from submission to acceptance, first progress and end, and the job's last state.

    `cancel_seconds` is from the cancelling call to the job's last event.
    """

    kind: str
    accepted: float
    first_event: float
    latency: float
    job: dict[str, Any]
    cancel_seconds: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether it ended with its pictures."""
        return bool(self.job["status"] == "succeeded")

    @property
    def added(self) -> float:
        """Seconds that the engine did not compute for the job."""
        timings = self.job["timings"]
        return self.latency - sum(timings[name] or 0 for name in ("encode", "denoise", "decode"))


async def run_job(
    client: httpx2.AsyncClient, kind: str, body: dict[str, Any], *, cancels: bool = False
) -> Outcome:
    """Submit a job and follow its events to the last one.

    With `cancels` it is cancelled after its first progress.
    """
    began = time.perf_counter()
    answer = await client.post("/generate", json=body)
    accepted = time.perf_counter() - began
    if answer.status_code != 202:
        raise RuntimeError(f"POST /generate answered {answer.status_code}: {answer.text[:300]}")
    path = f"/jobs/{answer.json()['id']}"
    first, cancelled_at, seen = None, None, b""
    async with client.stream("GET", f"{path}/events") as events:
        # Reading every line would cost the server as much as it measures, on the same cores.
        async for chunk in events.aiter_bytes():
            seen += chunk
            if first is None and b"\nevent: progress\n" in seen:
                first = time.perf_counter() - began
                if cancels:
                    cancelled_at = time.perf_counter()
                    await client.delete(path)
            if any(b"\nevent: %s\n" % end in seen for end in _ENDS):
                break
            seen = seen[max(0, seen.rfind(b"\n\n")) :]
    ended = time.perf_counter()
    job = json.loads((await client.get(path)).text)
    return Outcome(
        kind,
        accepted,
        first if first is not None else ended - began,
        ended - began,
        job,
        None if cancelled_at is None else ended - cancelled_at,
    )

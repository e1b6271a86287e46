"""Jobs and pictures of a running service."""

import io
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy
from PIL import Image

QUALITY = "masterpiece, best quality, very aesthetic, absurdres, safe, 1girl, solo"

_JOB_SECONDS = 120.0


def submit(service: httpx2.Client, **fields: Any) -> dict[str, Any]:
    answer = service.post("/generate", json=fields)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    job: dict[str, Any] = answer.json()
    return job


def finished(service: httpx2.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Follow the events of a job to their end; the finished job."""
    with service.stream("GET", f"/jobs/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for _ in event_lines(stream):
            pass
    done: dict[str, Any] = service.get(f"/jobs/{job['id']}").json()
    assert done["status"] in ("succeeded", "failed", "cancelled"), done
    return done


def event_lines(stream: httpx2.Response) -> Iterator[str]:
    """The lines of an event stream up to its end; fails if that does not come."""
    deadline = time.monotonic() + _JOB_SECONDS
    for line in stream.iter_lines():
        # No timeout of a client notices that the job hangs: comments come all the time.
        assert time.monotonic() < deadline, f"{stream.url} has not ended in time"
        yield line


def picture(service: httpx2.Client, job: dict[str, Any], index: int = 0) -> Image.Image:
    assert job["status"] == "succeeded", job
    answer = service.get(job["images"][index]["url"])
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


def pixels(image: Image.Image) -> numpy.ndarray[Any, Any]:
    return numpy.asarray(image.convert("RGB")).astype(float)

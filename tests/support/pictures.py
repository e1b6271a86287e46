"""Jobs and pictures of a running service."""

import io
from typing import Any

import httpx2
import numpy
from PIL import Image

QUALITY = "masterpiece, best quality, very aesthetic, absurdres, safe, 1girl, solo"


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
        for _ in stream.iter_lines():
            pass
    done: dict[str, Any] = service.get(f"/jobs/{job['id']}").json()
    assert done["status"] in ("succeeded", "failed", "cancelled"), done
    return done


def picture(service: httpx2.Client, job: dict[str, Any], index: int = 0) -> Image.Image:
    assert job["status"] == "succeeded", job
    answer = service.get(job["images"][index]["url"])
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


def pixels(image: Image.Image) -> numpy.ndarray[Any, Any]:
    return numpy.asarray(image.convert("RGB")).astype(float)

"""`txt2img` and `img2img`: images, time limit, masks."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx2
from PIL import Image

from tests.support.a1111_clients import (
    FILE,
    IMG2IMG,
    NO_WAIT,
    TXT2IMG,
    is_idle,
    read_a1111_error,
    read_progress,
)
from tests.support.images import draw_image, open_image, to_base64
from tests.support.manual_worker import ManualWorker
from tests.support.pending_call import PendingCall
from worker.job_errors import job_error

StartCall = Callable[..., tuple[PendingCall, str]]


def test_response_has_the_images_of_the_job(
    client: httpx2.Client, worker: ManualWorker, start_call: StartCall
) -> None:
    call, job_id = start_call(seed=7, batch_size=2, auth="user:secret", width=600, height=600)
    worker.claim(job_id)
    worker.finish(job_id, FILE, FILE + b"2")
    response = call.response()
    assert response.status_code == 200
    assert response.headers["x-job-id"] == job_id
    assert response.headers["location"] == f"/jobs/{job_id}"
    body = response.json()
    assert [base64.b64decode(image) for image in body["images"]] == [FILE, FILE + b"2"]
    info = json.loads(body["info"])
    assert (info["job_id"], info["seed"], info["all_seeds"]) == (job_id, 7, [0, 1])
    assert len(info["infotexts"]) == len(info["all_prompts"]) == 2
    assert info["infotexts"][1].startswith("1girl\nNegative prompt: \nSteps: 20, Sampler: ER SDE")
    assert (info["width"], info["height"]) == (128, 128)
    assert info["warnings"][0].startswith("size 600x600: using 192x192, the nearest size")
    assert body["parameters"]["seed"] == 7
    assert "secret" not in response.text
    assert is_idle(read_progress(client))


def test_send_images_false_leaves_out_the_images(
    worker: ManualWorker, start_call: StartCall
) -> None:
    call, job_id = start_call(send_images=False)
    worker.claim(job_id)
    worker.finish(job_id, FILE)
    body = call.response().json()
    assert body["images"] == []
    assert json.loads(body["info"])["all_seeds"] == [0]


def test_call_over_its_time_limit_names_the_job(
    client: httpx2.Client, worker: ManualWorker
) -> None:
    response = client.post(TXT2IMG, json={"prompt": "1girl"}, headers=NO_WAIT)
    error = read_a1111_error(response, 504, "job_unfinished")
    (job_id,) = worker.queued_ids()
    assert error["job_id"] == job_id
    assert job_id in error["detail"]
    assert response.headers["location"] == f"/jobs/{job_id}"
    worker.claim(job_id)
    images = worker.finish(job_id, FILE)
    assert client.get(response.headers["location"]).json()["status"] == "succeeded"
    assert client.get(images[0].url).content == FILE


def test_failed_job_is_an_error(worker: ManualWorker, start_call: StartCall) -> None:
    call, job_id = start_call()
    worker.claim(job_id)
    worker.end(job_id, "failed", error=job_error("non_finite", "NaN in the latents"))
    error = read_a1111_error(call.response(), 500, "non_finite")
    assert error["job_id"] == job_id
    assert "NaN in the latents" in error["detail"]


def test_same_idempotency_key_is_the_same_job(client: httpx2.Client, worker: ManualWorker) -> None:
    headers = NO_WAIT | {"idempotency-key": "once"}
    responses = [client.post(TXT2IMG, json={"prompt": "1girl"}, headers=headers) for _ in range(2)]
    assert {response.json()["job_id"] for response in responses} == set(worker.queued_ids())


def _submit_with_mask(client: httpx2.Client, mask: Image.Image, **fields: Any) -> dict[str, Any]:
    """Submit a job for a 128x128 image; the resolved request."""
    body = {
        "prompt": "1girl",
        "init_images": [to_base64(draw_image())],
        "mask": to_base64(mask),
        **fields,
    }
    response = client.post(IMG2IMG, json=body, headers=NO_WAIT)
    request: dict[str, Any] = client.get(response.headers["location"]).json()["request"]
    return request


def _middle_row(client: httpx2.Client, name: str) -> bytes:
    """The middle row of a stored mask of 128x128 pixels."""
    stored = open_image(client.get(f"/images/{name}").content)
    assert (stored.size, stored.mode) == ((128, 128), "L")
    return stored.tobytes()[64 * 128 : 65 * 128]


def test_opaque_areas_of_a_mask_are_repainted(client: httpx2.Client) -> None:
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 32, 64))  # black, but opaque
    ends = []
    for invert in (0, 1):
        request = _submit_with_mask(
            client, mask, mask_blur=0, denoising_strength=0.5, inpainting_mask_invert=invert
        )
        assert (request["width"], request["height"], request["strength"]) == (128, 128, 0.5)
        row = _middle_row(client, request["mask"])
        ends.append((row[8], row[120]))
    assert ends == [(255, 0), (0, 255)]


def test_edge_of_a_mask_is_blurred_by_default(client: httpx2.Client) -> None:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    row = _middle_row(client, _submit_with_mask(client, mask)["mask"])
    assert (row[40], row[88]) == (255, 0)
    assert 255 > row[62] > row[66] > 0

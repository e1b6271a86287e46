"""Errors have the A1111 format and name the A1111 fields."""

from typing import Any

import httpx2

from tests.support.a1111_clients import IMG2IMG, NO_WAIT, TXT2IMG, read_a1111_error
from tests.support.manual_worker import ManualWorker

INVALID_FIELDS: list[tuple[Any, list[str], str]] = [
    ({"steps": 500, "batch_size": 100}, ["steps", "batch_size"], "less than or equal to 100"),
    ({"steps": "many"}, ["steps"], "valid integer"),
    ({"hr_scale": [1]}, ["hr_scale"], "valid number"),
    ({"sampler_name": "LMS"}, ["sampler_name"], "Sampler not found. Available: ER SDE"),
    ({"cfg_scale": 99, "width": 0}, ["width"], "greater than or equal to 1"),
    ({"cfg_scale": 99}, ["cfg_scale"], "less than or equal to 30"),
    ({"prompt": "<lora:none:1>"}, ["prompt"], "LoRA"),
    ({"prompt": "(" * 500}, ["prompt"], "nest"),
    ({"enable_hr": True, "denoising_strength": 3}, ["denoising_strength"], "equal to 1"),
    ({"script_name": "X/Y/Z plot"}, ["script_name"], "Script not found"),
    ({"infotext": "x" * 200_001}, ["infotext"], "at most 200000 characters"),
    (5, [""], "object"),
]


def test_invalid_fields_are_named(client: httpx2.Client, worker: ManualWorker) -> None:
    for body, names, text in INVALID_FIELDS:
        request = {"prompt": "1girl"} | body if isinstance(body, dict) else body
        response = client.post(TXT2IMG, json=request)
        error = read_a1111_error(response, 422, "validation_failed")
        locations = [["body", name] if name else ["body"] for name in names]
        assert [entry["loc"][:2] for entry in error["detail"]] == locations, body
        assert text in error["errors"], body
    assert worker.queued_ids() == []


def test_unusable_images_are_named(client: httpx2.Client) -> None:
    response = client.post(IMG2IMG, json={"prompt": "x"})
    error = read_a1111_error(response, 422, "validation_failed")
    assert error["errors"] == "init_images: Init image not found"
    for image in ("no picture", "http://example.com/a.png", "/images/" + "0" * 40 + ".png"):
        body = {"prompt": "x", "init_images": [image], "mask": "neither"}
        error = read_a1111_error(client.post(IMG2IMG, json=body), 422, "validation_failed")
        assert {entry["loc"][1] for entry in error["detail"]} == {"init_images", "mask"}


def test_other_checkpoints_are_refused(client: httpx2.Client, worker: ManualWorker) -> None:
    other = {"sd_model_checkpoint": "v1-5-pruned.safetensors"}
    response = client.post("/sdapi/v1/options", json=other)
    error = read_a1111_error(response, 404, "model_not_found")
    assert error["detail"].startswith("model 'v1-5-pruned.safetensors' not found")
    body = {"prompt": "x", "override_settings": other}
    read_a1111_error(client.post(TXT2IMG, json=body), 404, "model_not_found")
    assert worker.queued_ids() == []


def test_errors_outside_of_routes(client: httpx2.Client) -> None:
    json = {"content-type": "application/json"}
    read_a1111_error(client.post(TXT2IMG, content=b"{", headers=json), 400, "malformed_json")
    read_a1111_error(client.get("/sdapi/v1/nothing"), 404, "not_found")
    read_a1111_error(client.get(TXT2IMG), 405, "method_not_allowed")


def test_full_queue(client: httpx2.Client, worker: ManualWorker) -> None:
    for number in range(5):  # a repeated body would continue with the same job
        client.post(TXT2IMG, json={"prompt": f"x{number}"}, headers=NO_WAIT)
    response = client.post(TXT2IMG, json={"prompt": "x"}, headers=NO_WAIT)
    assert read_a1111_error(response, 429, "queue_full")["job_id"] is None
    assert int(response.headers["retry-after"]) >= 1
    assert len(worker.queued_ids()) == 5

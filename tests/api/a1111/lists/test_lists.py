"""Lists and settings that A1111 clients read at their start."""

from typing import Any

import httpx2

from model.recipes.aliases import find_sampler, find_schedule
from model.recipes.recipe import Recipe
from tests.support.manual_worker import ManualWorker

FIXED_LISTS: dict[str, Any] = {
    "prompt-styles": [],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "loras": [],
    "embeddings": {"loaded": {}, "skipped": {}},
    "scripts": {"txt2img": [], "img2img": []},
    "cmd-flags": {"api": True, "nowebui": True},
    "memory": {"ram": {"error": "unavailable"}, "cuda": {"error": "unavailable"}},
    "sd-vae": [
        {
            "model_name": "qwen-image-vae-tiny.safetensors",
            "filename": "vae/qwen-image-vae-tiny.safetensors",
        }
    ],
}


def test_settings_can_be_sent_back_and_never_change(client: httpx2.Client) -> None:
    options = client.get("/sdapi/v1/options").json()
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert options["sd_model_checkpoint"] == model["title"] == "kirazuri-tiny.safetensors"
    assert "forge_preset" not in options, "clients recognise Forge by this key"
    changed = options | {"samples_format": "jpg", "CLIP_stop_at_last_layers": 2, "new": [None]}
    assert client.post("/sdapi/v1/options", json=changed).json() == {}
    assert client.get("/sdapi/v1/options").json() == options


def test_hashes_are_those_of_a_running_worker(client: httpx2.Client, worker: ManualWorker) -> None:
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert (model["hash"], model["sha256"]) == (None, None)
    worker.heartbeat(recipe=Recipe(card="kirazuri-tiny", checkpoint="0123456789abcdef" * 4))
    (model,) = client.get("/sdapi/v1/sd-models").json()
    assert (model["hash"], model["sha256"]) == ("0123456789", "0123456789abcdef" * 4)
    assert model["filename"] == "diffusion_models/kirazuri-tiny.safetensors"


def test_requests_accept_every_listed_name(client: httpx2.Client) -> None:
    samplers = client.get("/sdapi/v1/samplers").json()
    assert samplers[0] == {"name": "ER SDE", "aliases": ["er_sde"], "options": {}}
    for sampler in samplers:
        found = find_sampler(sampler["name"])
        assert found is not None
        assert [found.sampler] == sampler["aliases"]
    first, *schedulers = client.get("/sdapi/v1/schedulers").json()
    assert first["name"] == "automatic"
    for scheduler in schedulers:
        found_schedule = find_schedule(scheduler["label"])
        assert found_schedule == find_schedule(scheduler["name"]) == scheduler["name"]
    upscalers = [entry["name"] for entry in client.get("/sdapi/v1/upscalers").json()]
    assert upscalers == ["None", "Lanczos"]
    assert client.get("/sdapi/v1/latent-upscale-modes").json() == [{"name": "Latent (bicubic)"}]


def test_fixed_lists(client: httpx2.Client) -> None:
    assert {path: client.get(f"/sdapi/v1/{path}").json() for path in FIXED_LISTS} == FIXED_LISTS


def test_calls_without_effect(client: httpx2.Client) -> None:
    names = ("checkpoints", "vae", "loras", "embeddings")
    for path in (*(f"/sdapi/v1/refresh-{name}" for name in names), "/login"):
        response = client.post(path, data={"username": "u", "password": "p"})
        assert (response.status_code, response.json()) == (200, {}), path


def test_ping_and_system_info(client: httpx2.Client) -> None:
    assert client.get("/internal/ping").json() == {}
    assert client.get("/internal/sysinfo").json()["Checkpoint"] == "kirazuri-tiny.safetensors"

"""LoRAs in the running service: files appear in the folder, and requests name them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest
import torch
from safetensors.torch import save_file

from model.files.safetensors_header import read_header
from tests.support.cli import kirazuri_inline
from tests.support.pictures import QUALITY, finished, picture, pixels, submit

pytestmark = pytest.mark.timeout(240)

WEIGHTS = Path("model/checkpoints/kirazuri-tiny/diffusion_models/kirazuri-tiny.safetensors")
BODY = {
    "prompt": f"{QUALITY}, pink hair, smile, white serafuku, blue background",
    "seed": 3,
    "steps": 8,
}


def write_lora(path: Path, *, key: str, seed: int, scale: float = 1.0) -> str:
    """Write low-rank noise for every weight whose name contains `key`; the SHA-256 of the file."""
    torch.manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name, stored in read_header(WEIGHTS).tensors.items():
        if key in name and name.endswith(".weight") and len(stored.shape) == 2:
            stem = (
                f"lora_unet_{name.removeprefix('net.').removesuffix('.weight').replace('.', '_')}"
            )
            rows, columns = stored.shape
            tensors |= {
                f"{stem}.lora_down.weight": torch.randn(4, columns) / columns**0.5,
                f"{stem}.lora_up.weight": scale * torch.randn(rows, 4) / 4,
                f"{stem}.alpha": torch.tensor(4.0),
            }
    assert tensors
    save_file(tensors, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def made(service: httpx2.Client, *loras: tuple[str, float]) -> "numpy.ndarray[Any, Any]":
    fields = {**BODY, "loras": [{"name": name, "weight": weight} for name, weight in loras]}
    return pixels(picture(service, finished(service, submit(service, **fields))))


def test_loras_combine_and_leave_no_trace(service: httpx2.Client, lora_folder: Path) -> None:
    plain = made(service)
    in_transformer = write_lora(lora_folder / "blocks.safetensors", key="net.blocks", seed=1)
    in_adapter = write_lora(lora_folder / "words.safetensors", key="llm_adapter.blocks", seed=2)
    listed = {lora["name"]: lora for lora in service.get("/capabilities").json()["loras"]}
    assert listed["blocks"]["sha256"] == in_transformer
    assert listed["words"]["sha256"] == in_adapter
    assert (listed["blocks"]["parts"], listed["words"]["parts"]) == (["transformer"], ["adapter"])

    sets = [[("blocks", 0.5)], [("words", 1.0)], [("blocks", 0.5), ("words", 1.0)], []]
    jobs = [
        submit(service, **BODY, loras=[{"name": name, "weight": weight} for name, weight in loras])
        for loras in sets
        for _ in range(2)
    ]
    together = [pixels(picture(service, finished(service, job))) for job in jobs]
    for index, loras in enumerate(sets):
        alone = made(service, *loras)
        for one in together[2 * index : 2 * index + 2]:
            assert numpy.abs(one - alone).max() <= 1, loras
        if loras:
            assert numpy.abs(alone - plain).mean() > 2, loras
    assert numpy.abs(made(service) - plain).max() <= 1


def test_a_replaced_file_changes_the_picture_and_a_bad_file_fails_the_job(
    service: httpx2.Client, lora_folder: Path
) -> None:
    write_lora(lora_folder / "a.safetensors", key="net.blocks", seed=3)
    first = made(service, ("a", 0.5))
    write_lora(lora_folder / "a.safetensors", key="net.blocks", seed=4)
    second = made(service, ("a", 0.5))
    assert numpy.abs(first - second).mean() > 1
    save_file(
        {
            "lora_unet_input_blocks_1_1_proj_in.lora_down.weight": torch.zeros(4, 8),
            "lora_unet_input_blocks_1_1_proj_in.lora_up.weight": torch.zeros(8, 4),
        },
        lora_folder / "sdxl.safetensors",
    )
    refused = service.post("/generate", json={**BODY, "loras": [{"name": "sdxl"}]})
    assert refused.status_code == 422
    assert "lora_unet_input_blocks_1_1_proj_in" in refused.text
    # Finite numbers whose product is not.
    write_lora(lora_folder / "huge.safetensors", key="net.blocks", seed=5, scale=1e37)
    job = finished(service, submit(service, **BODY, loras=[{"name": "huge", "weight": 4}]))
    assert job["status"] == "failed"
    assert job["error"]["code"] == "lora_unusable"
    assert "not finite" in job["error"]["detail"]
    assert job["attempts"] == 1
    assert service.get(job["error"]["type"]).json()["explanation"]


def test_the_command_line_names_loras(
    service: httpx2.Client, lora_folder: Path, tmp_path: Path
) -> None:
    sha256 = write_lora(lora_folder / "cli.safetensors", key="net.blocks", seed=5)
    url = str(service.base_url)
    run = kirazuri_inline(
        "generate", "1girl, red hair", "--lora", "cli:0.25", "--steps", "4", "--url", url,
        "--deterministic", "--out", "a.png", folder=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    content = (tmp_path / "a.png").read_bytes()
    assert f'Lora hashes: "cli: {sha256[:12]}"'.encode() in content
    assert b"1girl, red hair <lora:cli:0.25>" in content
    options = ("--from", "a.png", "--deterministic", "--out", "b.png", "--url", url)
    again = kirazuri_inline("generate", *options, folder=tmp_path)
    assert (again.returncode, again.stderr) == (0, run.stderr)
    assert (tmp_path / "b.png").read_bytes() == content
    run = kirazuri_inline("generate", "1girl", "--lora", "nobody", "--url", url, folder=tmp_path)
    assert run.returncode == 3
    assert "loras/0/name: there is no LoRA of this name" in run.stderr


def test_a_lora_that_is_deleted_while_its_job_waits_fails_the_job(
    service: httpx2.Client, lora_folder: Path
) -> None:
    path = lora_folder / "short-lived.safetensors"
    write_lora(path, key="net.blocks", seed=6)
    running = [submit(service, **{**BODY, "steps": 100}) for _ in range(8)]
    job = submit(service, **BODY, loras=[{"name": "short-lived"}])
    path.unlink()
    for other in running:
        service.delete(f"/jobs/{other['id']}")
    done = finished(service, job)
    assert done["error"]["code"] == "lora_missing", json.dumps(done)

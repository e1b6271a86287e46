"""The running service makes the same files again: repeats, replays, and `generate --from`."""

import hashlib
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx2
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.cli import kirazuri_inline
from tests.support.pictures import QUALITY, finished, submit
from tests.support.service import running

pytestmark = pytest.mark.timeout(180)

FIELDS: dict[str, Any] = {
    "prompt": f"{QUALITY}, pink hair, twintails, smile",
    "steps": 5,
    "seed": 77,
    "num_images": 2,
    "deterministic": True,
}


def hashes(service: httpx2.Client, job: dict[str, Any]) -> list[str]:
    """SHA-256 of the delivered files, which equal those of the job."""
    assert job["status"] == "succeeded", job
    files = [service.get(image["url"]).content for image in job["images"]]
    found = [hashlib.sha256(data).hexdigest() for data in files]
    assert found == [image["sha256"] for image in job["images"]]
    return found


def test_a_request_gives_the_same_files_alone_and_among_others(service: httpx2.Client) -> None:
    alone = hashes(service, finished(service, submit(service, **FIELDS)))
    assert len(set(alone)) == 2
    others = [{"prompt": "1boy", "seed": seed, "steps": 5} for seed in range(4)]
    again, *_, last = [submit(service, **fields) for fields in (FIELDS, *others, FIELDS)]
    assert hashes(service, finished(service, again)) == alone
    assert hashes(service, finished(service, last)) == alone


def test_a_replay_matches(service: httpx2.Client) -> None:
    job = finished(service, submit(service, **FIELDS))
    assert job["recipe"]["card"] == "kirazuri-tiny"
    assert len(job["recipe"]["checkpoint"]) == 64
    assert job["recipe"]["device_name"]
    answer = service.post(f"/jobs/{job['id']}/replay", headers={"Prefer": "wait=60"})
    assert answer.status_code == 200
    again = answer.json()
    assert (again["replay_of"], again["matches"]) == (job["id"], True)
    assert hashes(service, again) == hashes(service, job)
    assert not {"original_not_deterministic", "recipe_differs"} & {
        warning["code"] for warning in again["warnings"]
    }


def test_float8_is_named_and_a_replay_is_exact(tmp_path: Path) -> None:
    fields = {"prompt": "1girl, pink hair", "steps": 6, "seed": 3, "sampler": "er_sde"}
    with running(tmp_path, KIRAZURI_EXPERIMENTAL="float8") as service:
        (worker,) = service.get("/capabilities").json()["workers"]
        assert (worker["experimental"], worker["recipe"]["path"]) == ("float8", "")
        exact, fast, other = (
            finished(service, submit(service, **{**fields, **change}))
            for change in ({}, {"quality": "fast"}, {"quality": "fast", "sampler": "euler"})
        )
        assert [job["recipe"]["path"] for job in (exact, fast, other)] == [
            "eager", "float8", "eager",
        ]  # fmt: skip
        answer = service.post(f"/jobs/{fast['id']}/replay", headers={"Prefer": "wait=60"})
        again = answer.raise_for_status().json()
    assert (again["recipe"]["path"], again["matches"]) == ("eager", False)
    (difference,) = [one for one in again["warnings"] if one["code"] == "recipe_differs"]
    assert "path" in difference["detail"]


def command(service: httpx2.Client, folder: Path, *arguments: str) -> "CompletedProcess[str]":
    return kirazuri_inline(*arguments, "--url", str(service.base_url), folder=folder)


@pytest.mark.parametrize("ending", [".png", ".webp", ".jpg", ".avif"])
def test_a_picture_is_made_again_from_its_file(
    service: httpx2.Client, tmp_path: Path, ending: str
) -> None:
    """Uses the second picture of two, which has its own seed and its own format."""
    options = ("--steps", "3", "--seed", "5", "--num-images", "2", "--deterministic")
    prompt = f"{QUALITY}, (red hair:1.1), smile"
    made = command(service, tmp_path, "generate", prompt, *options, "--out", f"a{ending}")
    assert made.returncode == 0, made.stderr
    again = command(
        service, tmp_path, "generate", "--from", f"a-1{ending}", "--deterministic", "--out", "again"
    )
    assert (again.returncode, again.stderr) == (0, made.stderr), "the file adds no warning"
    (file,) = tmp_path.glob("again/*")
    assert file.name == f"kirazuri-6{ending}"
    assert file.read_bytes() == (tmp_path / f"a-1{ending}").read_bytes()


def test_warnings_of_the_job_are_printed(service: httpx2.Client, tmp_path: Path) -> None:
    info = PngInfo()
    text = f"{QUALITY}, [hat], smile BREAK {{a|b}}"
    info.add_text("parameters", f"{text}\nSteps: 2, Sampler: Euler, Seed: 11, Size: 128x128")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", pnginfo=info)
    for prompt in (("--from", "a.png"), (text, "--steps", "2")):
        run = command(service, tmp_path, "generate", *prompt, "--out", "b.png", "--force")
        assert run.returncode == 0, run.stderr
        (advice,) = [line for line in run.stderr.splitlines() if "BREAK" in line]
        assert advice.startswith("warning: BREAK is plain text")
        assert "[hat] does not weaken" in advice


def test_a_picture_of_a_web_ui_is_imported(service: httpx2.Client, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text(
        "parameters",
        f"{QUALITY}, blue hair, smile\nNegative prompt: \nSteps: 6, Sampler: DPM++ 2M Karras, "
        "CFG scale: 4, Seed: 11, Size: 128x144, Model hash: abcdef0123, Model: another, ENSD: 3",
    )
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", pnginfo=info)
    run = command(service, tmp_path, "generate", "--from", "a.png", "--out", "b.png")
    assert run.returncode == 0, run.stderr
    assert "warning: made with another (abcdef0123): this service has another" in run.stderr
    assert "warning: ensd: 3" in run.stderr
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (128, 144)
        text = image.info["parameters"]
    for piece in ("Sampler: DPM++ 2M", "Seed: 11", "Steps: 6", "Size: 128x144"):
        assert piece in text
    other = command(service, tmp_path, "generate", "--from", "b.png", "--seed", "9", "--steps", "1")
    assert "seed 9" in other.stdout


def test_replaying_from_the_command_line(service: httpx2.Client, tmp_path: Path) -> None:
    job = finished(service, submit(service, **FIELDS))
    run = command(service, tmp_path, "replay", job["id"])
    assert (run.returncode, run.stderr) == (0, "")
    assert f"matches {job['id']}" in run.stdout
    gone = command(service, tmp_path, "replay", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ")
    assert gone.returncode == 4
    assert gone.stderr.startswith("error: ")
    assert "7ZZZZZZZZZZZZZZZZZZZZZZZZZ" in gone.stderr


def test_edited_pictures_are_made_again(service: httpx2.Client, tmp_path: Path) -> None:
    source = finished(service, submit(service, prompt=f"{QUALITY}, blue hair", steps=4, seed=2))
    edits = {
        "init_image": source["images"][0]["url"],
        "strength": 0.6,
        "hires": {"scale": 1.25, "steps": 3, "strength": 0.5, "upscaler": "latent"},
    }
    fields = {**FIELDS, "num_images": 1, "steps": 4, **edits}
    job = finished(service, submit(service, **fields))
    data = service.get(job["images"][0]["url"]).content
    (tmp_path / "a.png").write_bytes(data)
    options = ("--from", "a.png", "--deterministic", "--out", "b.png")
    run = command(service, tmp_path, "generate", *options)
    details = [f"warning: {warning['detail']}" for warning in job["warnings"]]
    assert (run.returncode, run.stderr.splitlines()) == (0, details)
    assert (tmp_path / "b.png").read_bytes() == data
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > job["request"]["width"]
    again = service.post(f"/jobs/{job['id']}/replay", headers={"Prefer": "wait=60"}).json()
    assert again["matches"] is True

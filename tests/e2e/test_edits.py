"""Image to image, masks and second passes, through the API and the command line."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx2
import numpy
import pytest
from PIL import Image

from tests.support.cli import kirazuri_inline
from tests.support.pictures import QUALITY, finished, picture, pixels, submit
from training.evaluation.rules import read_colors

pytestmark = pytest.mark.timeout(180)

LOOK = "twintails, red eyes, smile, white serafuku, pink background"


def coded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def upper_half() -> Image.Image:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 128, 64))
    return mask


@pytest.fixture(scope="module")
def base(service: httpx2.Client) -> dict[str, Any]:
    return finished(service, submit(service, prompt=f"{QUALITY}, blue hair, {LOOK}", seed=7))


def edited(service: httpx2.Client, base: dict[str, Any], **fields: Any) -> dict[str, Any]:
    prompt = f"{QUALITY}, pink hair, {LOOK}"
    start = {"init_image": base["images"][0]["url"], "seed": 8}
    return finished(service, submit(service, **{"prompt": prompt, **start, **fields}))


def test_hair_changes_its_colour_and_the_rest_stays(
    service: httpx2.Client, base: dict[str, Any]
) -> None:
    before = picture(service, base)
    after = picture(service, edited(service, base, strength=0.5))
    assert read_colors(before)["hair_color"] == "blue hair"
    assert read_colors(after)["hair_color"] == "pink hair"
    face = (44, 68, 84, 100)
    assert numpy.abs(pixels(before.crop(face)) - pixels(after.crop(face))).mean() < 12


def test_a_sent_picture_and_a_named_picture_give_the_same_result(
    service: httpx2.Client, base: dict[str, Any]
) -> None:
    fields = {"strength": 0.4, "steps": 4, "deterministic": True}
    named = edited(service, base, **fields)
    sent = edited(service, base, **fields, init_image=coded(picture(service, base)))
    assert (pixels(picture(service, named)) == pixels(picture(service, sent))).all()
    assert named["request"]["init_image"] == base["images"][0]["url"].rpartition("/")[2]
    for name in (named["request"]["init_image"], sent["request"]["init_image"]):
        assert service.get(f"/images/{name}").status_code == 200


def test_pixels_outside_the_mask_stay_bit_identical(
    service: httpx2.Client, base: dict[str, Any]
) -> None:
    fields = {
        "mask": coded(upper_half()), "strength": 0.9, "steps": 8, "num_images": 2, "previews": True,
    }  # fmt: skip
    job = edited(service, base, **fields)
    original = pixels(picture(service, base))
    results = [pixels(picture(service, job, index)) for index in range(2)]
    for result in results:
        assert (result[64:] == original[64:]).all()
        assert numpy.abs(result[:64] - original[:64]).mean() > 5
    assert (results[0] != results[1]).any()


def test_a_second_pass_is_larger_repeatable_and_written_to_the_file(
    service: httpx2.Client, base: dict[str, Any]
) -> None:
    fields: dict[str, Any] = {
        "prompt": f"{QUALITY}, blue hair, {LOOK}", "seed": 7, "deterministic": True, "steps": 8,
        "hires": {"scale": 1.5, "steps": 5, "strength": 0.3},
    }  # fmt: skip
    job, again = [finished(service, submit(service, **fields)) for _ in range(2)]
    (image,) = job["images"]
    assert (image["width"], image["height"]) == (192, 192)
    assert image["sha256"] == again["images"][0]["sha256"]
    assert job["progress"] == {"step": 13, "steps": 13, "fraction": 1.0}
    large = picture(service, job)
    assert large.size == (192, 192)
    assert read_colors(large.resize((128, 128)))["hair_color"] == "blue hair"
    hires = "Hires upscale: 1.5, Hires steps: 5, Hires upscaler: Lanczos"
    assert f"Denoising strength: 0.3, {hires}" in large.info["parameters"]
    replayed = service.post(f"/jobs/{job['id']}/replay", headers={"Prefer": "wait=60"}).json()
    assert replayed["matches"] is True


def test_the_command_line_edits_and_repeats_edits(
    service: httpx2.Client, base: dict[str, Any], tmp_path: Path
) -> None:
    picture(service, base).save(tmp_path / "girl.png")
    upper_half().save(tmp_path / "mask.png")
    to = ("--url", str(service.base_url))
    edit = ("--init-image", "girl.png", "--mask", "mask.png", "--strength", "0.8",
            "--hires-scale", "1.5", "--hires-steps", "4", "--hires-strength", "0.3",
            "--steps", "5", "--seed", "3", "--deterministic", "--out", "edit.png")  # fmt: skip
    made = kirazuri_inline("generate", f"{QUALITY}, green hair", *edit, *to, folder=tmp_path)
    assert made.returncode == 0, made.stderr
    with Image.open(tmp_path / "edit.png") as image:
        assert image.size == (192, 192)
    again = ("--from", "edit.png", "--deterministic", "--out", "again.png")
    repeated = kirazuri_inline("generate", *again, *to, folder=tmp_path)
    assert (repeated.returncode, repeated.stderr) == (0, made.stderr)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "edit.png").read_bytes()
    refused = kirazuri_inline("generate", "1girl", "--init-image", "none.png", *to, folder=tmp_path)
    assert refused.returncode == 2
    assert "none.png: no such file" in refused.stderr

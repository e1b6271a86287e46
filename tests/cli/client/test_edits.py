"""Pictures on the command line: files, names, and what is neither."""

import base64
from pathlib import Path
from typing import Any

import pytest

from cli.client.dry_run import describe
from cli.client.edits import PictureError, edits, picture
from tests.support.plans import PLAN

NAME = "a" * 40 + ".png"
NO_HIRES = {"scale": None, "steps": None, "strength": None, "upscaler": None}


def test_a_file_goes_as_base64(tmp_path: Path) -> None:
    file = tmp_path / "girl.png"
    file.write_bytes(b"\x89PNG bytes")
    assert base64.b64decode(picture("--mask", str(file))) == b"\x89PNG bytes"


@pytest.mark.parametrize("value", [NAME, f"/images/{NAME}", f"http://host/images/{NAME}"])
def test_an_image_of_the_service_goes_by_its_name(value: str) -> None:
    assert picture("--init-image", value) == value


@pytest.mark.parametrize("value", ["gril.png", "folder/girl.png", ""])
def test_a_file_that_is_not_there_is_named(value: str) -> None:
    with pytest.raises(PictureError, match=r"--init-image .*: no such file"):
        picture("--init-image", value)


def test_nothing_given_is_nothing_asked() -> None:
    assert not any(edits(None, None, None, dict(NO_HIRES)).values())


def test_a_second_pass_needs_its_scale() -> None:
    fields = edits(NAME, NAME, 0.4, {**NO_HIRES, "scale": 1.5, "upscaler": "latent"})
    assert fields == {
        "init_image": NAME, "mask": NAME, "strength": 0.4,
        "hires": {"scale": 1.5, "upscaler": "latent"},
    }  # fmt: skip
    with pytest.raises(PictureError, match="--hires-steps: give --hires-scale too"):
        edits(None, None, None, {**NO_HIRES, "steps": 5})


def test_a_plan_tells_where_it_starts_and_ends() -> None:
    second: dict[str, Any] = {
        "scale": 1.5, "width": 192, "height": 192, "steps": 9, "strength": 0.5,
        "upscaler": "lanczos",
    }  # fmt: skip
    request = {**PLAN["request"], "init_image": NAME, "strength": 0.6, "mask": None}
    told = list(describe({**PLAN, "request": {**request, "hires": second}}))
    assert f"starts from      {NAME}, strength 0.6" in told
    assert "second pass      192x192 by lanczos, 9 steps, strength 0.5" in told
    masked = list(describe({**PLAN, "request": {**request, "mask": NAME}}))
    assert f"repaints         {NAME}, strength 0.6" in masked

"""Signed pictures: making the certificate, signing, and verifying files."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import c2pa
import httpx2
import numpy
import pytest
from PIL import Image

from tests.support.cli import kirazuri_inline
from tests.support.pictures import QUALITY, finished, submit
from tests.support.service import running
from worker.images.metadata import EXTENSIONS

pytestmark = pytest.mark.timeout(180)

FIELDS: dict[str, Any] = {"prompt": f"{QUALITY}, red hair, smile", "steps": 2, "seed": 5}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The certificate of the authority, and the variables that `kirazuri certificate` prints."""
    folder = tmp_path_factory.mktemp("signing")
    made = kirazuri_inline("certificate", "own", "--organisation", "Studio", folder=folder)
    assert made.returncode == 0, made.stderr
    variables = dict(line.split("=", 1) for line in made.stdout.splitlines())
    absolute = {name: str(folder / path) for name, path in variables.items()}
    return (folder / "own" / "ca.pem").read_text(), absolute


@pytest.fixture(scope="module")
def signing(
    authority: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    with running(tmp_path_factory.mktemp("service"), **authority[1]) as client:
        yield client


def verified(service: httpx2.Client, data: bytes) -> Any:
    answer = service.post("/verify", files={"image": data})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_format_is_signed_and_recognised(
    signing: httpx2.Client, authority: tuple[str, dict[str, str]]
) -> None:
    jobs = [submit(signing, image_format=kind, **FIELDS) for kind in EXTENSIONS]
    for kind, job in zip(EXTENSIONS, jobs, strict=True):
        (image,) = finished(signing, job)["images"]
        data = signing.get(image["url"]).content
        settings = {
            "trust": {"trust_anchors": authority[0]},
            "verify": {"remote_manifest_fetch": False},
        }
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Reader(f"image/{kind}", io.BytesIO(data), context=context) as reader,
        ):
            report = reader.json()
            assert reader.get_validation_state() == "Trusted"
        assert "red hair" not in report
        (manifest,) = json.loads(report)["manifests"].values()
        assert manifest["signature_info"]["issuer"] == "Studio"

        found = verified(signing, data)
        assert (found["verdict"], found["made_by"]["job_id"]) == ("ours", job["id"])
        assert found["recipe"]["request"]["seed"] == 5
        assert found["credentials"]["state"] == "valid"
        # Saved again without metadata, the pixels alone prove nothing.
        saved = io.BytesIO()
        with Image.open(io.BytesIO(data)) as picture:
            Image.fromarray(numpy.asarray(picture.convert("RGB"))).save(saved, "PNG")
        found = verified(signing, saved.getvalue())
        assert (found["verdict"], found["credentials"]["state"]) == ("unknown", "none")


def test_a_file_is_checked_from_the_command_line(signing: httpx2.Client, tmp_path: Path) -> None:
    (image,) = finished(signing, submit(signing, **FIELDS))["images"]
    (tmp_path / "a.png").write_bytes(signing.get(image["url"]).content)
    ran = kirazuri_inline("verify", "a.png", "--url", str(signing.base_url), folder=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    verdict, *summary = ran.stdout.splitlines()
    assert verdict == "ours"
    assert any("It was signed by Picture signer, Studio" in line for line in summary)
    (tmp_path / "b.png").write_text("no image")
    ran = kirazuri_inline("verify", "b.png", "--url", str(signing.base_url), folder=tmp_path)
    assert ran.returncode == 3
    assert "Unreadable image" in ran.stderr


def test_a_replay_of_a_signed_picture_matches(signing: httpx2.Client) -> None:
    job = finished(signing, submit(signing, deterministic=True, **FIELDS))
    again = signing.post(f"/jobs/{job['id']}/replay", headers={"Prefer": "wait=60"}).json()
    assert again["matches"] is True
    (first,), (second,) = job["images"], again["images"]
    assert first["sha256"] != second["sha256"]
    assert first["unsigned_sha256"] == second["unsigned_sha256"]

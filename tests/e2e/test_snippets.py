"""Every command and program of the documentation runs as it stands, on the shared service."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.support.cli import clean_environment
from tests.support.lora_files import write
from tests.support.pictures import QUALITY, finished, submit
from tests.support.snippets import ALL, Snippet, matches

pytestmark = pytest.mark.timeout(240)

SAMPLE_JOB = "01JD6Z1Q8M4T0V7C2N5K9R3XWB"
"""The job of all examples; a real one takes its place."""

RUN = {
    language: [one for one in ALL if one.language == language and not one.reason]
    for language in ("sh", "python")
}

CURL = 'exec {} --fail-with-body --no-progress-meter --max-time 120 "$@"'
"""An error of the service is one of the command, too."""


@pytest.fixture(scope="module")
def job(service: httpx2.Client) -> dict[str, Any]:
    """A job whose picture the examples read."""
    return finished(
        service, submit(service, prompt=f"{QUALITY}, blue hair, smile", steps=4, deterministic=True)
    )


@pytest.fixture(scope="module")
def material(
    service: httpx2.Client,
    job: dict[str, Any],
    lora_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """A folder with the files that the examples name. The LoRAs are there meanwhile."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "girl.png").write_bytes(service.get(job["images"][0]["url"]).content)
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((255, 255, 255, 0), (0, 0, 128, 64))  # white and transparent: for every API
    mask.save(folder / "mask.png")
    loras = [lora_folder / f"{name}.safetensors" for name in ("watercolor", "hats")]
    for lora in loras:
        write(lora)
    yield folder
    for lora in loras:
        lora.unlink()


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of one example."""
    copy: Path = shutil.copytree(material, tmp_path / "example")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH with `kirazuri`, and a `curl` that fails if the service does."""
    folder = tmp_path_factory.mktemp("commands")
    real = shutil.which("curl")
    for name, line in (
        ("kirazuri", f'exec {sys.executable} -m cli.main "$@"'),
        ("python", f'exec {sys.executable} "$@"'),
        ("curl", CURL.format(real)),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


def for_service(snippet: Snippet, service: httpx2.Client, job: dict[str, Any]) -> str:
    """The code for this service instead of the one of the examples."""
    host = str(service.base_url).rstrip("/").removeprefix("http://")
    code = snippet.code.replace("localhost:8000", host).replace(SAMPLE_JOB, job["id"])
    return code.replace(".venv/bin/", "")


@pytest.mark.parametrize("snippet", RUN["sh"], ids=lambda one: one.name)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_commands_run(
    service: httpx2.Client,
    job: dict[str, Any],
    folder: Path,
    commands: Path,
    redis_url: str,
    snippet: Snippet,
) -> None:
    variables = clean_environment(
        KIRAZURI_URL=str(service.base_url),
        KIRAZURI_REDIS_URL=redis_url,  # for `kirazuri keys`, which would lock the shared service
        KEY="a-key-that-nobody-asks-for",
        HOME=str(folder),
    )
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", for_service(snippet, service, job)],
        cwd=folder,
        env={**variables, "PATH": f"{commands}:{variables['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    # An error of the service may be what the page shows.
    assert ended.returncode == 0 or snippet.output, (
        f"{snippet.name}\n{ended.stdout}\n{ended.stderr}"
    )
    assert not snippet.output or matches(ended.stdout, snippet.output), ended.stdout


@pytest.mark.parametrize("snippet", RUN["python"], ids=lambda one: one.name)
def test_programs_run(
    service: httpx2.Client,
    job: dict[str, Any],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    snippet: Snippet,
) -> None:
    """Each in a namespace of its own: it imports what it needs."""
    before = {file.name for file in folder.iterdir()}
    names: dict[str, Any] = {"__name__": "__main__"}
    code = compile(for_service(snippet, service, job), snippet.name, "exec")
    try:
        exec(code, names)
    finally:
        for client in [value for value in names.values() if hasattr(value, "close")]:
            if not isinstance(client, type):
                client.close()
    written = [file for file in folder.iterdir() if file.name not in before]
    assert all(file.stat().st_size > 50 for file in written)
    printed = capsys.readouterr().out
    assert not snippet.output or matches(printed, snippet.output), printed

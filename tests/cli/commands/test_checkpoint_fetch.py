"""`kirazuri checkpoint fetch` with the real client of huggingface_hub and a hub on this machine."""

import hashlib
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from model.card import Card, load_card
from tests.support.checkpoint_command import (
    SHIPPED,
)
from tests.support.cli import kirazuri, kirazuri_inline
from tests.support.every_layout import MAIN, QWEN, VAE, all_in_one, library_folder
from tests.support.hub import FakeHub, running_hub
from tests.support.paths import ROOT


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with running_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name in (QWEN, VAE):
            running.files[f"lab/small/split_files/{name}"] = (SHIPPED / name).read_bytes()
        for mine, theirs in (("tokenizer", "qwen3"), ("t5_tokenizer", "t5")):
            content = (SHIPPED / "tokenizers" / theirs / "tokenizer.json").read_bytes()
            running.files[f"lab/folder/{mine}/tokenizer.json"] = content
            running.files[f"lab/folder/{mine}/README.md"] = b"not needed"
        yield running


@pytest.fixture
def card_file(tmp_path: Path) -> Path:
    return write_card(tmp_path)


def write_card(folder: Path, **sha256: str) -> Path:
    """Write the card of the small checkpoint with sources and checksums."""

    def weights(name: str, path: str) -> str:
        digest = sha256.get(name) or hashlib.sha256((SHIPPED / path).read_bytes()).hexdigest()
        return (
            f'[files.{name}]\npath = "{path}"\nsha256 = "{digest}"\n'
            f'[files.{name}.source]\nrepo = "lab/small"\npath = "split_files/{path}"\n'
        )

    text = (ROOT / "model/cards/kirazuri-tiny.toml").read_text()
    before, _, rest = text.partition("[files.text_encoder]")
    _, _, after = rest.partition("[transformer]")
    before = before.replace('name = "kirazuri-tiny"', 'name = "small"', 1)
    before = before.replace(f'path = "{MAIN}"', f'path = "{MAIN}"\nnote = "Ask its authors."')
    tokenizers = "".join(
        f'[files.{name}_source]\nrepo = "lab/folder"\npath = "{path}"\n'
        for name, path in (("qwen_tokenizer", "tokenizer"), ("t5_tokenizer", "t5_tokenizer"))
    )
    path = folder / "small.toml"
    path.write_text(
        f"{before}{weights('text_encoder', QWEN)}{weights('vae', VAE)}{tokenizers}"
        f"[transformer]{after}"
    )
    assert Card.model_validate(load_card(str(path)).model_dump()).files.vae.source
    return path


def fetch(card: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return kirazuri_inline(*fetch_arguments(card, *options), folder=card.parent)


def fetch_in_new_process(
    hub: FakeHub, card: Path, *options: str
) -> "subprocess.CompletedProcess[str]":
    return kirazuri(
        *fetch_arguments(card, *options),
        folder=card.parent,
        HF_ENDPOINT=hub.url,
        HF_HOME=str(card.parent / "home"),
    )


def fetch_arguments(card: Path, *options: str) -> list[str]:
    folder = str(card.parent / "files")
    return ["checkpoint", "fetch", str(card), "--checkpoint-dir", folder, *options]


def test_available_files_are_fetched_and_missing_ones_are_named(
    hub: FakeHub, card_file: Path
) -> None:
    files = card_file.parent / "files"
    first = fetch(card_file, "--accept-licence")
    assert first.returncode == 1, first.stderr
    assert "Licence: MIT" in first.stdout
    for name in (QWEN, VAE):
        assert (files / name).read_bytes() == (SHIPPED / name).read_bytes()
    for own in ("qwen3", "t5"):
        fetched = [path.name for path in (files / "tokenizers" / own).iterdir()]
        assert fetched == ["tokenizer.json"]
    assert "missing transformer and text adapter" in first.stdout
    shown, _, done = first.stdout.partition("fetched ")
    assert f"missing   text encoder                  {QWEN}" in shown, "all is listed first"
    assert f"fetch   VAE from lab/small/split_files/{VAE}" in shown
    assert "missing transformer" in done
    assert f"Ask its authors.\n        Put it at {files / MAIN}" in first.stdout

    shutil.copy(SHIPPED / QWEN, files / MAIN)
    wrong = fetch(card_file)
    assert wrong.returncode == 1
    assert f"{files / MAIN}: it has no transformer and no conditioner, but text" in wrong.stderr
    assert "Move it away and run this again" in wrong.stderr
    shutil.copy(SHIPPED / MAIN, files / MAIN)
    before = len(hub.requests)
    second = fetch(card_file)
    assert second.returncode == 0, second.stderr
    assert len(hub.requests) == before, "nothing is downloaded again"
    digest = hashlib.sha256((SHIPPED / MAIN).read_bytes()).hexdigest()
    assert f"(transformer, text adapter, sha256 {digest})" in second.stdout
    assert "Everything is there" in second.stdout

    (files / VAE).unlink()
    third = fetch(card_file, "--accept-licence", "--json")
    assert [row["is_there"] for row in json.loads(third.stdout)] == [True] * 5
    assert "fetched VAE" in third.stderr


def test_parts_in_other_layouts_are_not_fetched(hub: FakeHub, card_file: Path) -> None:
    files = card_file.parent / "files"
    all_in_one(files, parts=("vae",))
    (files / QWEN).unlink()
    run = fetch(card_file, "--accept-licence")
    assert run.returncode == 0, run.stderr
    assert re.search(rf"there +VAE +{VAE} [(]in {files / MAIN}[)]", run.stdout)
    assert not (files / VAE).exists()
    fetched = {path for verb, path, _ in hub.requests if verb == "GET" and "/resolve/" in path}
    assert fetched == {f"lab/small/resolve/main/split_files/{QWEN}"}
    shutil.rmtree(files)
    library_folder(files)
    run = fetch(card_file)
    assert run.returncode == 0, run.stderr
    assert "diffusers folder with everything in it" in run.stdout
    shutil.rmtree(files / "vae")
    assert "VAE: small expects it at" in fetch(card_file).stderr


def test_without_consent_nothing_is_fetched(hub: FakeHub, card_file: Path) -> None:
    run = fetch(card_file)
    assert run.returncode == 1
    assert "--accept-licence" in run.stderr
    assert hub.requests == []


def test_an_interrupted_download_continues_in_another_process(hub: FakeHub, tmp_path: Path) -> None:
    content = random.Random(0).randbytes(25_000_000)
    hub.files[f"lab/small/split_files/{QWEN}"] = content
    card = write_card(tmp_path, text_encoder=hashlib.sha256(content).hexdigest())
    files = tmp_path / "files"
    fetched = files / QWEN
    # The rest is there: the hub's client waits long before it gives up a list of files.
    for name in (VAE, "tokenizers/qwen3/tokenizer.json", "tokenizers/t5/tokenizer.json"):
        (files / name).parent.mkdir(parents=True)
        shutil.copy(SHIPPED / name, files / name)
    hub.breaks_after = 15_000_000
    broken = fetch(card, "--accept-licence")
    assert broken.returncode == 1
    assert "error: text encoder: lab/small" in broken.stderr
    assert not fetched.exists()
    (partial,) = fetched.parent.iterdir()
    done = partial.stat().st_size
    assert 10_000_000 < done <= 15_000_000
    hub.breaks_after, hub.is_unavailable = None, False
    hub.requests.clear()
    fetch_in_new_process(hub, card, "--accept-licence")
    ranges = [asked for verb, path, asked in hub.requests if verb == "GET" and QWEN in path]
    assert ranges == [f"bytes={done}-"]
    assert fetched.read_bytes() == content
    assert [path.name for path in fetched.parent.iterdir()] == [Path(QWEN).name]


def test_wrong_content_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    card = write_card(tmp_path, vae="0" * 64)
    run = fetch(card, "--accept-licence")
    assert run.returncode == 1
    digest = hashlib.sha256((SHIPPED / VAE).read_bytes()).hexdigest()
    assert f"has sha256 {digest}, not {'0' * 64}" in run.stderr
    assert list((tmp_path / "files" / VAE).parent.iterdir()) == []
    (tmp_path / "files" / VAE).write_bytes((SHIPPED / VAE).read_bytes())
    run = fetch(card, "--accept-licence")
    assert run.returncode == 1
    assert f"has sha256 {digest}; the card says {'0' * 64}" in run.stderr


def test_a_file_that_the_hub_lacks_is_named(hub: FakeHub, card_file: Path) -> None:
    del hub.files[f"lab/small/split_files/{VAE}"]
    run = fetch(card_file, "--accept-licence")
    assert run.returncode == 1
    assert f"error: VAE: lab/small/split_files/{VAE}: " in run.stderr
    assert "Traceback" not in run.stderr
    for name in ("qwen3", "t5"):
        assert f"tokenizers/{name}/tokenizer.json" in run.stdout, "the others are fetched"
    path = card_file.parent / "files" / VAE
    assert f"Or copy split_files/{VAE} of lab/small to {path}" in run.stderr
    assert "HF_ENDPOINT" in run.stderr
    assert "missing transformer and text adapter" in run.stdout


def test_the_folder_and_the_card_are_required(tmp_path: Path) -> None:
    run = kirazuri_inline("checkpoint", "fetch", "kirazuri-v1", folder=tmp_path)
    assert run.returncode == 1
    assert "--checkpoint-dir or KIRAZURI_CHECKPOINT_DIR" in run.stderr
    shipped = kirazuri_inline("checkpoint", "fetch", "kirazuri-tiny", folder=tmp_path)
    assert shipped.returncode == 0
    assert "ships with the package" in shipped.stdout
    unknown = kirazuri_inline("checkpoint", "inspect", "x", "--card", "none", folder=tmp_path)
    assert unknown.returncode == 1
    assert "no card named 'none'" in unknown.stderr

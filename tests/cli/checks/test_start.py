"""`kirazuri up` and `doctor` tell everything that is wrong at once, before anything starts."""

import importlib.metadata
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.checks.start import check_before_start
from tests.support.checkpoint_command import SHIPPED
from tests.support.cli import kirazuri_inline
from tests.support.every_layout import QWEN, VAE
from tests.support.ports import free_port
from worker.redis_io.server import RedisServer
from worker.settings import Settings


def _no_text_encoder(folder: Path) -> None:
    (folder / QWEN).unlink()


def _truncated_text_encoder(folder: Path) -> None:
    with (folder / QWEN).open("r+b") as file:
        file.truncate(1000)


def _wrong_vae(folder: Path) -> None:
    weights = load_file(folder / VAE)
    name = next(name for name in weights if name.endswith("weight"))
    save_file({**weights, name: torch.ones(3, 5)}, folder / VAE)


def _no_tokenizers(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizers")


def _broken_tokenizers(folder: Path) -> None:
    for name in ("qwen3", "t5"):
        (folder / "tokenizers" / name / "tokenizer.json").write_text("<html>")


def _one_tokenizer_missing_and_one_broken(folder: Path) -> None:
    _broken_tokenizers(folder)
    shutil.rmtree(folder / "tokenizers/t5")


Damage = Callable[[Path], None]


@pytest.mark.parametrize(
    ("damages", "told"),
    [
        ((_wrong_vae, _no_tokenizers), ["has shape (3, 5)", "Qwen tokenizer", "T5 tokenizer"]),
        ((_wrong_vae, _no_text_encoder), ["has shape (3, 5)", "text encoder"]),
        ((_wrong_vae, _broken_tokenizers), ["has shape (3, 5)", "/qwen3", "/t5"]),
        (
            (_truncated_text_encoder, _wrong_vae, _one_tokenizer_missing_and_one_broken),
            ["is truncated", "has shape (3, 5)", "tokenizers/qwen3", "T5 tokenizer"],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["up", "doctor"])
def test_all_faults_of_a_checkpoint_are_told_at_once(
    tmp_path: Path, command: str, damages: tuple[Damage, ...], told: list[str]
) -> None:
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "checkpoint"))
    for damage in damages:
        damage(folder)
    arguments = ("--checkpoint-dir", str(folder), "--port", "0")
    run = kirazuri_inline(command, *arguments, folder=tmp_path)
    assert run.returncode == 1
    assert {text: text in run.stdout + run.stderr for text in told} == dict.fromkeys(told, True)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"], "nothing was started"


def test_all_faults_of_the_machine_and_the_settings_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "checkpoint"))
    _no_text_encoder(folder)
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = kirazuri_inline(
            "up", "--checkpoint-dir", str(folder), "--port", str(port),
            "--data", str(tmp_path / "file/data"), folder=tmp_path, KIRAZURI_REDIS_URL="foo://x",
            KIRAZURI_TAGS_FILE="gone.csv", KIRAZURI_KEYS_FILE="gone.toml",
        )  # fmt: skip
    assert run.returncode == 1
    lines = run.stderr.splitlines()
    named = {line[8:37].strip() for line in lines if line.startswith("fault ")}
    assert named == {
        "checkpoint", "torch", "data folder", "Redis", "port", "tags_file", "keys_file",
    }  # fmt: skip
    assert f"not started because of {len(named)} faults" in lines[-1]


def test_a_card_that_is_not_there_hides_no_other_fault(tmp_path: Path) -> None:
    run = kirazuri_inline(
        "up", "--card", "nonsense", "--port", "0", folder=tmp_path, KIRAZURI_TAGS_FILE="gone.csv"
    )
    assert run.returncode == 1
    assert "fault   card " in run.stderr
    assert "fault   tags_file " in run.stderr


def test_the_file_to_download_by_hand_is_told_with_the_title_of_its_page(tmp_path: Path) -> None:
    folder = ("--card", "kirazuri-v1", "--checkpoint-dir", str(tmp_path))
    run = kirazuri_inline("up", "--port", "0", *folder, folder=tmp_path)
    assert run.returncode == 1
    assert "from the checkpoint's page, whose title is 'Kirazuri (Anima)'" in run.stderr


def test_a_second_service_is_told_of_folder_and_port(
    tmp_path: Path, shared_redis: RedisServer
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/redis").symlink_to(shared_redis.folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = kirazuri_inline("up", "--port", port, "--data", "data", folder=tmp_path)
    assert run.returncode == 1
    assert f"another service uses {tmp_path / 'data'}" in run.stderr
    assert f"cannot listen on 127.0.0.1:{port}" in run.stderr


def test_a_large_checkpoint_on_a_cpu_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.checks.device._TOO_LARGE_FOR_CPU", 1e6)

    def found(device: str) -> list[str]:
        settings = Settings(_env_file=None, data_dir=tmp_path / "data", device=device)
        checks = check_before_start(
            settings, host="127.0.0.1", port=free_port(), workers=1, report=print
        )
        assert json.dumps([one.as_json() for one in checks])
        return [one.found for one in checks if one.state == "warning" and one.check == "device"]

    (warning,) = found("cpu")
    assert "it takes hours for a picture" in warning
    monkeypatch.setattr("cli.checks.machine.torch_build", lambda: ("2.13.0", "12.8"))
    monkeypatch.setattr("cli.checks.machine.has_nvidia_driver", lambda: True)
    assert found("auto") == []

"""The command line's face: help, version, what it says to wrong settings."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.support.cli import kirazuri

COMMANDS = (
    "generate",
    "up",
    "version",
    "checkpoint",
    "checkpoint inspect",
    "checkpoint fetch",
    "checkpoint convert",
    "keys",
    "keys add",
    "keys list",
    "keys revoke",
)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output
    if command in ("up", "generate") or " " in command:
        assert "Examples:" in shown.output


def test_version() -> None:
    assert CliRunner().invoke(app, ["version"]).output.startswith("kirazuri-server ")


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    run = kirazuri("up", folder=tmp_path, KIRAZURI_MAX_QUEUE="0")
    assert run.returncode == 1
    assert run.stderr.startswith("error: KIRAZURI_MAX_QUEUE: ")


def test_an_unknown_card_is_named(tmp_path: Path) -> None:
    run = kirazuri("up", "--card", "none", "--port", "0", folder=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: no card named 'none'")


def test_nobody_answers(tmp_path: Path) -> None:
    run = kirazuri("generate", "1girl", "--url", "http://127.0.0.1:9", folder=tmp_path)
    assert run.returncode == 1
    assert "start the service with `kirazuri up`" in run.stderr


def test_bench_lora_times_every_kind_of_change(tmp_path: Path) -> None:
    done = kirazuri("bench", "lora", "--rounds", "1", "--rank", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for kind in ("checking a new file", "merging a set", "taking it away", "going back to it"):
        assert f"{kind}: " in done.stdout


def test_bench_schedule_prints_a_table_without_a_checkpoint(tmp_path: Path) -> None:
    done = kirazuri("bench", "schedule", "--jobs", "50", "--load", "0.5", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "load 50%, 50 jobs, 8 in the engine" in done.stdout
    assert done.stdout.count("| shortest remaining first, with ageing |") == 1

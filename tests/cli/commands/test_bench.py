"""`kirazuri bench` starts the benchmarks of model.bench and cli.bench."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from model.bench import lora
from tests.support.cli import kirazuri


def test_every_benchmark_is_a_module_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def run(command: list[str], *, check: bool) -> "subprocess.CompletedProcess[str]":
        started.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    assert CliRunner().invoke(app, ["bench", "--help"]).exit_code == 0
    for arguments, module, options in (
        (["picture", "--help"], "model.bench.picture", ["--help"]),
        (["schedule", "--jobs", "5"], "model.bench.scheduling", ["--jobs", "5"]),
        (["lora"], "model.bench.lora", []),
        (["serve", "--jobs", "3"], "cli.bench.serving.serve", ["--jobs", "3"]),
        (["start"], "cli.bench.serving.start", []),
        (["engine"], "model.bench.engine_speed", []),
        (["baseline", "--compile"], "model.bench.baseline", ["--compile"]),
        (["codecs", "--side", "64"], "cli.bench.codecs", ["--side", "64"]),
        (["counts", "--size", "64x64"], "model.bench.counts", ["--size", "64x64"]),
        (["queue", "--quick"], "cli.bench.queue", ["--quick"]),
    ):
        assert CliRunner().invoke(app, ["bench", *arguments]).exit_code == 3
        assert started.pop() == [sys.executable, "-m", module, *options]
        assert importlib.util.find_spec(module), module
    assert started == []


def test_bench_lora_times_every_kind_of_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In this process, which loads torch anyway."""
    path = tmp_path / "lora.json"
    monkeypatch.setattr(sys, "argv", ["lora", "--rounds", "1", "--rank", "2", f"--json={path}"])
    lora.main()
    printed, rows = capsys.readouterr().out, json.loads(path.read_text())["rows"]
    kinds = ["checking a new file", "merging a set", "removing it", "returning to it"]
    assert [row["change"] for row in rows] == kinds
    assert all(f"| {kind} | " in printed for kind in kinds)
    assert all(0 < row["shortest s"] <= row["longest s"] for row in rows)


def test_bench_schedule_prints_a_table_without_a_checkpoint(tmp_path: Path) -> None:
    command = ("bench", "schedule", "--jobs", "50", "--load", "0.5", "--json", "found.json")
    done = kirazuri(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "50 jobs, 8 in the engine" in done.stdout
    assert done.stdout.count("| shortest remaining first, with ageing |") == 1
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["load"] for row in rows] == ["50%"] * 3 + ["50%, 8 keys"] + ["and a greedy one"] * 3

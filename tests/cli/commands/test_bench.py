"""`kirazuri bench` starts the benchmarks of model.bench and cli.bench."""

import importlib.util
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli.main import app
from model.bench import lora
from tests.support.cli import Running, kirazuri, processes_of
from tests.support.waiting import wait_until


def test_every_benchmark_is_a_module_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str]]] = []

    def note(module: str) -> SimpleNamespace:
        return SimpleNamespace(main=lambda: started.append((module, sys.argv[1:])))

    monkeypatch.setattr(sys, "argv", [])
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
        assert importlib.util.find_spec(module), module
        with monkeypatch.context() as patch:
            patch.setattr("cli.commands.bench.import_module", note)
            assert CliRunner().invoke(app, ["bench", *arguments]).exit_code == 0
        assert started.pop() == (module, options)
    assert started == []
    assert CliRunner().invoke(app, ["bench", "--help"]).exit_code == 0


@pytest.mark.parametrize(("name", "sign"), [("queue", "api.log"), ("start", "redis/url")])
def test_an_interrupt_ends_a_benchmark_and_all_that_it_started(
    name: str, sign: str, tmp_path: Path
) -> None:
    bench = Running("bench", name, folder=tmp_path, TMPDIR=str(tmp_path))
    wait_until(lambda: list(tmp_path.glob(f"kirazuri-bench-*/{sign}")), seconds=120)
    assert bench.end(signal.SIGINT) == 130
    wait_until(lambda: processes_of(tmp_path) == [], seconds=120)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert "Traceback" not in bench.output()


def test_what_a_killed_benchmark_has_started_ends(tmp_path: Path) -> None:
    bench = Running("bench", "start", folder=tmp_path, TMPDIR=str(tmp_path))
    wait_until(lambda: list(tmp_path.glob("kirazuri-bench-*/redis/url")), seconds=120)
    assert bench.end(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: processes_of(tmp_path) == [], seconds=120)


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

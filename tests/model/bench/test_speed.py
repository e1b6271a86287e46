"""The benchmarks of speed run, and say what they measured; not how fast anything is."""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.bench import baseline, engine_speed, pauses, scheduling

QUICK = ["--steps", "1", "--resolution", "square", "--threads", "1", "--device", "cpu"]


def run(monkeypatch: pytest.MonkeyPatch, module: Any, path: Path, *options: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["bench", *QUICK, *options, f"--json={path}"])
    module.main()
    return json.loads(path.read_text())


def test_the_engine_is_measured_against_the_matrix_peak(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--presets", "square", "portrait", "--rounds", "1", "--matrix", "64"]
    found = run(monkeypatch, engine_speed, tmp_path / "engine.json", *options)
    assert [row["size"] for row in found["rows"]] == ["128x128", "112x144"]
    for row in found["rows"]:
        assert 0 < row["forward ms"] <= row["picture per step ms"]
    assert "matrix peak" in capsys.readouterr().out


def test_the_step_loop_waits_for_no_neighbour(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "pauses.json"
    monkeypatch.setattr(sys, "argv", ["bench", "--pauses", "--rounds", "1", f"--json={path}"])
    scheduling.main()
    rows = json.loads(path.read_text())["rows"]
    assert {row["neighbour"] for row in rows} > {"nobody", "is upscaled in pixels", "brings LoRAs"}
    assert [row["waits"] for row in rows] == [0] * len(rows)


def test_waits_of_the_step_loop_are_counted() -> None:
    engine: Any = SimpleNamespace(_velocity=SimpleNamespace(_velocity=lambda rows: rows))
    with ThreadPoolExecutor(1) as pool:
        engine.step = lambda: pool.submit(time.sleep, 0.05).result()
        assert pauses.Meter(engine).step()[0].waits == 1
        engine.step = lambda: pool.submit(len, ()).exception() or []
        assert pauses.Meter(engine).step()[0].waits == 0


def test_every_split_of_the_cores_is_an_arrangement() -> None:
    found = baseline.list_arrangements(4, at_once=3, has_compiled=True)
    splits = [(1, 4), (2, 2), (4, 1), (1, 1)]
    for kind in ("diffusers", "diffusers, compiled"):
        assert [(a.processes, a.threads) for a in found if a.kind == kind] == splits
    assert [a.at_once for a in found if a.kind == "engine"] == [1] * 4 + [3] * 4
    assert baseline.list_arrangements(1, at_once=1, has_compiled=False) == [
        baseline.Arrangement("diffusers", 1, 1),
        baseline.Arrangement("engine", 1, 1),
    ]


def test_arrangements_run_twice_in_opposite_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    rates = {"diffusers": 2.0, "engine": 6.0}

    def measure(one: baseline.Arrangement, arguments: Any) -> baseline.Run:
        order.append(one.kind)
        return baseline.Run(rates[one.kind], 1 / rates[one.kind], len(order))

    monkeypatch.setattr(baseline, "measure", measure)
    both = [baseline.Arrangement("diffusers", 1, 1), baseline.Arrangement("engine", 1, 1)]
    rows = baseline.measure_all(both, argparse.Namespace(), [])
    assert order == ["diffusers", "engine", "engine", "diffusers"]
    assert [row["relative to diffusers' best"] for row in rows] == ["1.00x", "3.00x"]
    assert [row["processor s per picture"] for row in rows] == [2.5, 2.5]


@pytest.mark.parametrize(("kind", "processes"), [("diffusers", 1), ("engine", 2)])
def test_processes_make_pictures_together(kind: str, processes: int) -> None:
    one = baseline.Arrangement(kind, processes, 1)
    found = baseline.measure(one, [*QUICK, "--pictures", "1"])
    assert found.rate > 0
    assert 0 < found.seconds < float("inf")
    assert 0 < found.processor < float("inf")


def test_a_process_that_fails_says_why() -> None:
    one = baseline.Arrangement("engine", 1, 1)
    with pytest.raises(RuntimeError, match=r"ended with 1:[\s\S]*no-such-card"):
        baseline.measure(one, [*QUICK, "--card", "no-such-card"])

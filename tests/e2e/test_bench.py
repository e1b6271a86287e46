"""`kirazuri bench serve` against the real service."""

import json
import sys
from pathlib import Path

import httpx2
import pytest

from cli.bench.serving import serve


def test_a_server_is_measured(
    service: httpx2.Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "serve.json"
    options = ["--classes", "square:2", "portrait:3", "--jobs", "4", "--clients", "2",
               "--alone", "1", "--loads", "0.5", f"--url={service.base_url}"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["serve", *options, f"--json={path}"])
    serve.main()
    rows = json.loads(path.read_text())["rows"]
    assert [(row["load"], row["class"], row["jobs"]) for row in rows] == [
        ("alone", "square:2", 1),
        ("alone", "portrait:3", 1),
        ("saturation", "square:2", 2),
        ("saturation", "portrait:3", 2),
        ("50%", "square:2", 2),
        ("50%", "portrait:3", 2),
    ]
    for row in rows:
        assert row["failed"] == 0
        assert 0 < row["first progress"] <= row["p99"]
        assert row["p50"] <= row["p95"] <= row["p99"]
        assert row["beside the engine ms"] > 0
    assert "saturation" in capsys.readouterr().out

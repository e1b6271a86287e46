"""`kirazuri bench codecs` measures every format."""

import json
import sys
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from cli.bench import codecs
from model.request import ImageFormat
from tests.support.torch_free import needs_a_worker

pytestmark = needs_a_worker


def test_every_format_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "codecs.json"
    monkeypatch.setattr(sys, "argv", ["codecs", "--side", "64", "--rounds", "1", f"--json={path}"])
    codecs.main()
    assert "64x64, grain 1.0, median of 1" in capsys.readouterr().out
    rows = json.loads(path.read_text())["rows"]
    assert [row["format"] for row in rows] == [*get_args(ImageFormat), codecs.REFERENCE]
    assert all(row["ms per megapixel"] > 0 and row["MB per megapixel"] > 0 for row in rows)


def test_a_file_can_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.webp"
    Image.new("RGBA", (24, 16)).save(path)
    monkeypatch.setattr(sys, "argv", ["codecs", "--rounds", "1", f"--picture={path}"])
    codecs.main()
    assert "24x16, mine.webp, median of 1" in capsys.readouterr().out


def test_the_picture_is_neither_flat_nor_noise() -> None:
    pixels = codecs.picture(128).astype(int)
    steps = abs(pixels[:, 1:] - pixels[:, :-1])
    assert pixels.std() > 10
    assert 0.5 < steps.mean() < 5

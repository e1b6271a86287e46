"""Runs `kirazuri checkpoint` in this process, for the small checkpoint."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cli.main import app
from model.card import load_card, shipped_folder
from tests.support.every_layout import MAIN

CARD = load_card("kirazuri-tiny")
SHIPPED = shipped_folder(CARD)
TINY = ("--card", "kirazuri-tiny")


def run_checkpoint(*arguments: str | Path) -> tuple[int, str]:
    shown = CliRunner().invoke(app, ["checkpoint", *map(str, arguments)])
    return shown.exit_code, shown.output


def inspected(*arguments: str | Path) -> dict[str, Any]:
    code, output = run_checkpoint("inspect", *arguments, *TINY, "--json")
    report: dict[str, Any] = json.loads(output)
    assert code == bool(report["problems"])
    return report


def checkpoint_root(folder: Path) -> Path:
    """The folder that a layout of `every_layout` was written to."""
    return folder / MAIN if (folder / MAIN).is_dir() else folder

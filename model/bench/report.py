"""Prints a benchmark's table and writes its numbers with the machine, versions and command."""

import json
import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model.files.cpu_threads import processor

_VERSIONS = ("torch", "diffusers", "transformers", "numpy", "pillow")


def add_json_option(parser: ArgumentParser) -> None:
    """Add the option `--json`."""
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")


def print_report(
    conditions: str, rows: Sequence[dict[str, Any]], *, command: str, json_path: Path | None
) -> None:
    """Print conditions and rows as a Markdown table; write them as JSON if there is a path.

    All rows have the same keys, which are the titles of the columns.
    """
    print(f"{conditions}\n\n{markdown(rows)}")
    if json_path is not None:
        write_json(conditions, rows, command=command, path=json_path)


def write_json(
    conditions: str, rows: Sequence[dict[str, Any]], *, command: str, path: Path
) -> None:
    """Write rows with their conditions, the machine, the versions and the command."""
    content = {
        "command": " ".join(["kirazuri", "bench", command, *sys.argv[1:]]).strip(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {name: version(name) for name in _VERSIONS},
        "conditions": conditions,
        "rows": list(rows),
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table. Fractions have three significant digits."""
    titles = list(rows[0])
    lines = [titles, ["---"] * len(titles)]
    lines += [[_shown(row[title]) for title in titles] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> dict[str, Any]:
    """The processor, and how busy the machine was: the load of the last minute."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"

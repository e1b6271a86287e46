"""What a run on a device finds: checks that hold or fail, and numbers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """Something that must hold; `detail` says what was found."""

    name: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True)
class Number:
    """A measurement. None: not measured; `note` says why, or what it means."""

    name: str
    value: float | None
    unit: str
    note: str = ""


Finding = Check | Number


def line(finding: Finding) -> str:
    """The finding as a row of a Markdown table."""
    if isinstance(finding, Check):
        return f"| {finding.name} | {'holds' if finding.holds else 'FAILS'} | {finding.detail} |"
    value = "not measured" if finding.value is None else f"{finding.value:.4g} {finding.unit}"
    return f"| {finding.name} | {value.strip()} | {finding.note} |"


def markdown(about: dict[str, Any], findings: Sequence[Finding]) -> str:
    """The conditions, then a table of the checks and one of the numbers."""
    lines = [", ".join(f"{name} {value}" for name, value in about.items()), ""]
    for kind, title in ((Check, "check"), (Number, "number")):
        lines += [f"| {title} | found | |", "|---|---|---|"]
        lines += [*(line(one) for one in findings if isinstance(one, kind)), ""]
    return "\n".join(lines)


def write(folder: Path, about: dict[str, Any], findings: Sequence[Finding]) -> None:
    """Write `gpu.json` and `gpu.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        **about,
        "checks": [asdict(one) for one in findings if isinstance(one, Check)],
        "numbers": [asdict(one) for one in findings if isinstance(one, Number)],
    }
    (folder / "gpu.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(markdown(about, findings), encoding="utf-8")

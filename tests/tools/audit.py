"""`make audit`: searches for known vulnerabilities of the pinned dependencies.

If the database of pip-audit does not answer or knows none of the packages, this says so;
pip-audit alone would report that nothing was found.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

PINS = ROOT / "constraints.txt"


def ask(pins: Path, options: list[str]) -> tuple[list[dict[str, Any]] | None, str]:
    """The database's entry for every pinned package, or None, and the message of pip-audit."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off", *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    words = [line for line in run.stderr.splitlines() if line.strip()]
    try:
        found: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        return None, words[-1] if words else f"exit code {run.returncode}"
    return found, ""


def judge(found: list[dict[str, Any]] | None, reason: str) -> tuple[int | None, list[str]]:
    """The exit code, and the lines to print; the code is None if no package was audited."""
    if found is None:
        return None, [f"NOT AUDITED: {reason}"]
    skipped = [package for package in found if "skip_reason" in package]
    if len(skipped) == len(found):
        reason = skipped[0]["skip_reason"] if skipped else "there is nothing to audit"
        return None, [f"NOT AUDITED: the database knows none of {len(found)} packages ({reason})"]
    weak = [
        f"{package['name']} {package['version']}: {weakness['id']}, fixed in "
        f"{', '.join(weakness['fix_versions']) or 'no version yet'}"
        for package in found
        for weakness in package.get("vulns", ())
    ]
    unknown = [f"not audited: {package['skip_reason']}" for package in skipped]
    audited = (
        f"{len(found) - len(skipped)} of {len(found)} packages audited, {len(weak)} vulnerabilities"
    )
    return int(bool(weak or unknown)), [*weak, *unknown, audited]


def main() -> int:
    """Run the audit; 1 if a package is vulnerable or was not audited, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.audit", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail if the database is unreachable")
    parser.add_argument("--pins", type=Path, default=PINS)
    given, options = parser.parse_known_args()
    code, lines = judge(*ask(given.pins, options))
    if code is None:
        code = int(given.strict)
        lines.append("The dependencies may have known vulnerabilities: run `make audit` "
                     "if the vulnerability database can be reached.")  # fmt: skip
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

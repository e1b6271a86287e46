"""Runs schemathesis on the OpenAPI document: no 5xx, no undocumented response."""

import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz.hooks import IMAGE_VARIABLE
from tests.fuzz.service import FuzzedService

_FOLDER = Path(__file__).parent

SETTINGS = {
    "MAX_QUEUE": "100000",
    "MAX_WAIT_SECONDS": "0.3",
    "LOG_LEVEL": "WARNING",
    # No sender runs, so webhooks are only stored.
    "WEBHOOK_SECRET": "whsec_" + "c2VjcmV0" * 4,
    "WEBHOOK_NETWORKS": "127.0.0.1/32",
}


def run_schemathesis(
    service: FuzzedService, *options: str, output: int | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run all phases; the exit code is 0 if nothing was found."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--no-color", "--config-file", str(_FOLDER / "schemathesis.toml")]
    command += ["run", f"{service.url}/openapi.json", *options]
    command += ["--header", f"Authorization: {service.headers['authorization']}"]
    root = _FOLDER.parents[1]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(root), IMAGE_VARIABLE: service.image},  # noqa: TID251 - a child's
        cwd=service.log.parent,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        text=True,
        check=False,
    )


def errors_in_log(service: FuzzedService) -> str:
    """The log lines about internal errors; empty if there are none."""
    lines = service.log.read_text(errors="replace").splitlines()
    words = (
        "Traceback",
        " ERROR ",
        "ERROR:",
        "CRITICAL:",
        " CRITICAL ",
        "Task exception",
        "ended with",
    )
    return "\n".join(line for line in lines if any(word in line for word in words))

"""`make gpu`: checks and numbers on a GPU; the exit code is 1 if a check fails.

Downloads nothing: weights in the published shapes are drawn on the device. `gpu.json` and `gpu.md`
have what was found.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from model.network.device import device_name
from tests.gpu.checks import CHECKS
from tests.gpu.findings import Check, Finding, line, markdown, write
from tests.gpu.float8 import float8
from tests.gpu.speed import NUMBERS
from tests.gpu.subject import Subject

Section = Callable[[Subject], Iterator[Finding]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device is available; `--device cpu --size tiny` rehearses", file=sys.stderr)
        return 1
    torch.set_num_threads(1 if options.device == "cpu" else os.cpu_count() or 1)
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="kirazuri-gpu-", dir=options.scratch)
        subject = Subject(
            options.device, Path(stack.enter_context(folder)), is_tiny=options.size == "tiny"
        )
        findings = run(subject, [*CHECKS, float8, *NUMBERS], seconds=60 * options.minutes)
    about = conditions(subject, " ".join(["make gpu", *sys.argv[1:]]))
    write(options.out, about, findings)
    print(markdown(about, findings))
    failed = [one.name for one in findings if isinstance(one, Check) and not one.holds]
    print(f"FAILED: {'; '.join(failed)}" if failed else "All checks hold.")
    return int(bool(failed))


def run(subject: Subject, sections: Sequence[Section], *, seconds: float) -> list[Finding]:
    """Run each section; a fault in one does not keep the others from running."""
    began = time.monotonic()
    findings: list[Finding] = []
    for section in (_weights, *sections):
        entered = time.monotonic()
        if entered - began > seconds:
            findings.append(Check(section.__name__, holds=False, detail="no time was left for it"))
            continue
        try:
            for finding in section(subject):
                findings.append(finding)
                print(line(finding), file=sys.stderr, flush=True)
        except Exception as exc:  # noqa: BLE001 - the section's border
            detail = f"{type(exc).__name__}: {exc}".splitlines()[0]
            findings.append(Check(section.__name__, holds=False, detail=detail))
            sys.excepthook(type(exc), exc, exc.__traceback__)
        print(f"({section.__name__}: {time.monotonic() - entered:.0f} s)", file=sys.stderr)
    return findings


def _weights(subject: Subject) -> Iterator[Finding]:
    subject.write_weights()
    yield from ()


def conditions(subject: Subject, command: str) -> dict[str, Any]:
    """What a reader must know to repeat the run."""
    return {
        "command": command,
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "device": device_name(subject.device),
        "card": Path(subject.card_name).stem if subject.is_tiny else "random weights, kirazuri-v1",
        "precision": subject.precision,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "diffusers": version("diffusers"),
        "system": platform.platform(),
    }


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--size", choices=["published", "tiny"], default="published",
        help="tiny: the checkpoint that ships with the project",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=7.5, help="begin nothing new after these")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="folder for the results")
    parser.add_argument("--scratch", type=Path, help="folder with room for 6 GB of weights")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

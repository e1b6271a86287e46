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
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from model.network.device import device_name
from tests.gpu.checks import CHECKS
from tests.gpu.findings import Check, Finding, Number, line, markdown, write
from tests.gpu.float8 import float8
from tests.gpu.speed import NUMBERS, templates
from tests.gpu.subject import Subject

Section = Callable[[Subject], Iterator[Finding]]

SECTIONS: dict[str, Section] = {
    section.__name__: section for section in (*CHECKS, *NUMBERS, float8, templates)
}
"""By name, the most important ones first: the last ones are left out where time is short."""


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
        findings = run(
            subject, [SECTIONS[name] for name in options.only], seconds=60 * options.minutes
        )
    about = conditions(subject, " ".join(["make gpu", *sys.argv[1:]]))
    write(options.out, about, findings)
    print(markdown(about, findings))
    failed = [one.name for one in findings if isinstance(one, Check) and not one.holds]
    print(f"FAILED: {'; '.join(failed)}" if failed else "All checks hold.")
    return int(bool(failed))


def run(subject: Subject, sections: Sequence[Section], *, seconds: float) -> list[Finding]:
    """Run each section; a fault in one does not keep the others from running.

    After `seconds` nothing new begins, also no other part of a section of numbers.
    """
    end = time.monotonic() + seconds
    findings: list[Finding] = []
    for section in (_weights, *sections):
        entered = time.monotonic()
        try:
            for finding in _in_time(section, subject, end):
                findings.append(finding)
                print(line(finding), file=sys.stderr, flush=True)
        except Exception as exc:  # noqa: BLE001 - the section's border
            detail = f"{type(exc).__name__}: {exc}".splitlines()[0]
            findings.append(Check(section.__name__, holds=False, detail=detail))
            sys.excepthook(type(exc), exc, exc.__traceback__)
        print(f"({section.__name__}: {time.monotonic() - entered:.0f} s)", file=sys.stderr)
    return findings


def _in_time(section: Section, subject: Subject, end: float) -> Iterator[Finding]:
    """What a section finds until `end`. A check left out fails, a number is not measured."""
    is_check = section in (_weights, *CHECKS)
    findings: Any = section(subject)
    with closing(findings):
        is_begun = False
        while (is_begun and is_check) or time.monotonic() < end:
            is_begun = True
            if (finding := next(findings, None)) is None:
                return
            yield finding
    if is_check:
        yield Check(section.__name__, holds=False, detail="no time was left for it")
    else:
        note = f"no time was left for {'the rest of it' if is_begun else 'it'}"
        yield Number(section.__name__, None, "", note)


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
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[*SECTIONS], help="parts")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="folder for the results")
    parser.add_argument("--scratch", type=Path, help="folder with room for 6 GB of weights")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

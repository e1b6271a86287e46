"""A folder of their own for the clients: a virtual environment and node_modules."""

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.clients.programs import FOLDER, REQUIREMENTS
from tests.support.paths import ROOT

HOME = ROOT / ".clients"
PYTHON = HOME / "python/bin/python"
NODE = HOME / "node"

_UV = "uv==0.13.9"
"""pip takes six times as long for these packages."""


class InstallError(Exception):
    """The packages of the clients cannot be installed; the message has the reason."""


def has_node() -> bool:
    """Whether node and npm are installed."""
    return shutil.which("node") is not None and shutil.which("npm") is not None


def install_python() -> None:
    """Build the virtual environment, unless it has these requirements already.

    Raises:
        InstallError: pip failed.
    """
    stamp = HOME / "python/.installed"
    if not _is_new(stamp, REQUIREMENTS):
        return
    venv.create(HOME / "python", clear=True, with_pip=True)
    python = str(PYTHON)
    run_installer([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", _UV], HOME)
    packages = ["--no-deps", "--no-build", "-r", str(REQUIREMENTS)]
    run_installer([python, "-m", "uv", "pip", "install", "-q", "--python", python, *packages], HOME)
    _write(stamp, REQUIREMENTS)


def install_node() -> None:
    """Install the packages of the lock file and copy the programs.

    Raises:
        InstallError: npm failed.
    """
    NODE.mkdir(parents=True, exist_ok=True)
    for file in (FOLDER / "node").iterdir():
        shutil.copy(file, NODE)
    install_packages(NODE, FOLDER / "node/package-lock.json")


def install_packages(folder: Path, lock: Path) -> None:
    """Install the packages of a lock file, a copy of which is in the folder; once for each lock.

    Raises:
        InstallError: npm failed.
    """
    stamp = folder / ".installed"
    if _is_new(stamp, lock):
        run_installer(
            ["npm", "ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts"], folder
        )
        _write(stamp, lock)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes() + sys.version.encode()).hexdigest()


def _is_new(stamp: Path, file: Path) -> bool:
    return not stamp.exists() or stamp.read_text() != _digest(file)


def _write(stamp: Path, file: Path) -> None:
    stamp.write_text(_digest(file))


def run_installer(command: list[str], folder: Path) -> None:
    """Run a command; raises InstallError with the end of its output if it fails."""
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        reason = (ran.stderr.strip() or ran.stdout.strip())[-2000:]
        raise InstallError(f"{Path(command[0]).name} could not install the clients:\n{reason}")

"""Builds .venv with what the service needs; `--tests` then adds what the tests need.

`make install` and `make setup` call it; without make: `python3 install.py`. It needs the standard
library only, and an old Python can read it as far as to say that it is too old. What is installed
stays, so that an interrupted run is taken up by the next one.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import List, Mapping, Sequence

OLDEST_PYTHON = (3, 11)

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own builds without CUDA."""

PROBE_SECONDS = 8.0
NVIDIA_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")

EXTRAS = ("api", "worker", "cli", "otel", "embedded-redis")
"""What runs the service. The tests need the whole lock."""

EXTRAS_WITHOUT_TORCH = ("api", "cli", "otel", "embedded-redis", "docs", "dev")

SERVICE_GB, TESTS_GB = 2.0, 1.0
"""What the packages take on the disk while they are installed, with torch's build for CPUs."""

_CAUSES = (
    (
        "No space left on device|Disk quota exceeded",
        "the disk is full: free some space and run the same command again",
    ),
    (
        "DO NOT MATCH THE HASHES",
        "a package is not the one of requirements.lock: the index, a mirror or a proxy changed it",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the certificate of the package index is not trusted: PIP_CERT names the file with a "
        "company's own authority",
    ),
    (
        "ProxyError|Cannot connect to proxy",
        "the proxy does not answer: look at HTTPS_PROXY, HTTP_PROXY and ALL_PROXY",
    ),
    (
        "NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Connection refused"
        "|Network is unreachable|name resolution|Connection broken|Connection aborted",
        "the package index cannot be reached: look at the network, or set HTTPS_PROXY for a proxy "
        "or PIP_INDEX_URL for a mirror, and run the same command again",
    ),
    ("Read-only file system|Permission denied", "the file named above cannot be written"),
    (
        "No matching distribution",
        "no index has the package for Python {python} on {system}, or none answered: try another "
        "Python, such as PYTHON=python3.11, and look at the network",
    ),
)


class SetupError(Exception):
    """The environment cannot be built; the message says why, and what to do."""


def main() -> int:
    """Build or complete the environment; the exit code."""
    parser = argparse.ArgumentParser(description="Build .venv, or complete it.")
    parser.add_argument("--tests", action="store_true", help="add what the tests need")
    parser.add_argument("--without-torch", action="store_true", help="build .venv-bare")
    options = parser.parse_args()
    root = Path(__file__).resolve().parent
    try:
        check_python()
        if options.without_torch:
            install_without_torch(root)
        else:
            (add_tests if options.tests else install)(root)
    except SetupError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Refuse a Python that cannot build the environment."""
    major, minor = sys.version_info[:2]
    if (major, minor) < OLDEST_PYTHON:
        raise SetupError(
            f"Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed; {sys.executable} is "
            f"{platform.python_version()}"
        )
    if sys.platform == "win32":
        raise SetupError("Windows is not supported; WSL (Linux inside Windows) is")
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        raise SetupError(
            f"{sys.executable} has no module venv or ensurepip; on Debian and Ubuntu: "
            f"apt install python{major}.{minor}-venv"
        )


def install(root: Path) -> None:
    """What runs the service: torch alone, then its part of the lock by hash, then the project."""
    environment = root / ".venv"
    done = environment / ".runtime"
    prepare(environment, 0 if done.exists() else SERVICE_GB)
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in pins if line.startswith("torch=="))
    if not has_torch(environment, torch):
        index = torch_index(os.environ, has_own_index=has_own_index(environment))
        # Another index may lack the pinned versions of what torch needs; the lock brings them.
        source = ["--index-url", index] if index else ["-c", str(root / "constraints.txt")]
        print(f"installing {torch}{f' from {index}' if index else ''}", flush=True)
        pip_install(environment, [*source, torch])
    print("installing the packages of the service", flush=True)
    _install_part(root, environment, EXTRAS)
    done.touch()


BY_HASH = ("--require-hashes", "--only-binary", ":all:", "--no-deps")
"""The lock is complete: pip need not look for dependencies."""


def _install_part(root: Path, environment: Path, extras: "Sequence[str]") -> None:
    """The part of the lock for these extras, then the project."""
    part = environment / "requirements.txt"
    command = [str(environment / "bin/python"), "docker/requirements.py", *extras]
    with part.open("wb") as file:
        subprocess.run(command, cwd=str(root), stdout=file, check=True)
    pip_install(environment, ["-q", *BY_HASH, "-r", str(part)])
    pip_install(environment, ["-q", "--no-build-isolation", "--no-deps", "-e", str(root)])


def install_without_torch(root: Path) -> None:
    """An environment of its own, .venv-bare, for the tests of all that needs no torch."""
    environment = root / ".venv-bare"
    done = environment / ".installed"
    prepare(environment, 0 if done.exists() else TESTS_GB)
    print("installing all packages but those that need torch", flush=True)
    _install_part(root, environment, EXTRAS_WITHOUT_TORCH)
    done.touch()


def add_tests(root: Path) -> None:
    """The rest of the lock, after `install`."""
    environment = root / ".venv"
    done = environment / ".installed"
    prepare(environment, 0 if done.exists() else TESTS_GB)
    print("installing the packages of the tests", flush=True)
    pip_install(environment, ["-q", *BY_HASH, "-r", str(root / "requirements.lock")])
    done.touch()


def prepare(environment: Path, needed_gb: float) -> None:
    """Make the environment, or clear up what an interrupted run has left in it."""
    python = environment / "bin/python"
    try:
        if not is_usable(python):
            print(
                f"building {environment.name} with Python {platform.python_version()}", flush=True
            )
            _make(environment)
        # pip writes INSTALLER after all other files of a package.
        for folder in environment.glob("lib/python*/site-packages/*.dist-info"):
            if not (folder / "INSTALLER").exists():
                shutil.rmtree(str(folder))
    except OSError as exc:
        raise SetupError(f"{environment} cannot be written: {exc.strerror or exc}") from exc
    _require_pip(python)
    free = shutil.disk_usage(str(environment)).free / 1e9
    if free < needed_gb:
        raise SetupError(
            f"the disk of {environment} has {free:.1f} GB free, and the packages take "
            f"{needed_gb:.0f} GB"
        )


def is_usable(python: Path) -> bool:
    """Whether it runs, and is the same version of Python as this one."""
    if not python.exists():
        return False
    command = [str(python), "-I", "-c", "import sys; print(sys.version_info[:2])"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode().strip() == str(tuple(sys.version_info[:2]))


def _make(environment: Path) -> None:
    from venv import EnvBuilder

    # In this process: its own executable may be one that is deleted here.
    EnvBuilder(clear=True, symlinks=True).create(str(environment))


def _require_pip(python: Path) -> None:
    """Install the pip that comes with Python, unless there is one."""
    for module in (["pip", "--version"], ["ensurepip"]):
        command = [str(python), "-I", "-m", *module]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode == 0:
            return
    said = done.stdout.decode(errors="replace").strip().splitlines() or ["no output"]
    raise SetupError(f"{python} gets no pip: {said[-1]}")


def has_torch(environment: Path, pin: str) -> bool:
    """Whether this version of torch is there, from whichever index."""
    folders = environment.glob("lib/python*/site-packages/torch-*.dist-info")
    versions = (one.name[len("torch-") : -len(".dist-info")] for one in folders)
    return any(version.partition("+")[0] == pin.partition("==")[2] for version in versions)


def has_own_index(environment: Path) -> bool:
    """Whether pip's files or variables name an index, or none at all."""
    command = [str(environment / "bin/python"), "-I", "-m", "pip", "config", "list"]
    shown = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout.decode()
    own = re.search(r"^(global|install|:env:)\.(index-url|no-index)=", shown, re.MULTILINE)
    return own is not None


def torch_index(variables: "Mapping[str, str]", *, has_own_index: bool) -> "str | None":
    """The index for torch; None is pip's default.

    `TORCH_INDEX` names it. If that is set, even to nothing, or if pip has an index of the user's
    choice, nothing is asked. Otherwise Linux without an NVIDIA driver gets PyTorch's builds for
    CPUs: 200 MB to download.
    """
    if "TORCH_INDEX" in variables:
        return variables["TORCH_INDEX"].strip() or None
    if has_own_index or sys.platform != "linux":
        return None
    if any(Path(path).exists() for path in NVIDIA_DRIVER):
        return None
    reason = why_unreachable(CPU_INDEX)
    if reason is None:
        return CPU_INDEX
    print(
        f"{CPU_INDEX} cannot be reached ({reason}): torch comes from pip's default index, whose "
        "wheels have CUDA (3 GB to download, 6 GB on the disk). TORCH_INDEX=<index> names another "
        "one; with TORCH_INDEX= nothing is asked.",
        file=sys.stderr,
        flush=True,
    )
    return None


def why_unreachable(index: str, seconds: float = PROBE_SECONDS) -> "str | None":
    """Why an index does not answer within this time; None if it does."""
    reasons: List["str | None"] = [f"no answer in {seconds:.0f} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(f"{index}/torch/", timeout=seconds).close()
            reasons.append(None)
        except urllib.error.HTTPError as exc:
            reasons.append(f"HTTP {exc.code}")
        except (OSError, ValueError) as exc:
            reasons.append(str(getattr(exc, "reason", exc)))

    # `timeout` is for each address of a name, and looking the name up has none.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return reasons[-1]


def pip_install(environment: Path, arguments: List[str]) -> None:
    """Run `pip install`. Nothing is byte-compiled: Python does that for what it imports."""
    temporary = environment / "tmp"
    temporary.mkdir(exist_ok=True)
    variables = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_USER": "0",
        "TMPDIR": str(temporary),  # the system's may be too small for torch
    }
    command = [str(environment / "bin/python"), "-I", "-m", "pip", "install", "--no-compile"]
    command += arguments
    errors = []
    try:
        with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE) as process:
            for line in process.stderr or ():
                errors.append(line.decode(errors="replace"))
                sys.stderr.write(errors[-1])
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)
    if process.returncode:
        raise SetupError(f"pip failed: {cause(''.join(errors))}")


def cause(errors: str) -> str:
    """What pip's errors mean, and what to do."""
    for pattern, meaning in _CAUSES:
        if re.search(pattern, errors):
            return meaning.format(python=platform.python_version(), system=platform.platform())
    return "see above; the same command goes on from here"


if __name__ == "__main__":
    sys.exit(main())

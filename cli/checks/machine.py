"""Checks Python, packages, memory, disk and port of this machine, without torch."""

import errno
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2

from cli.checks.checkpoint import Parts
from cli.checks.finding import Finding, State
from cli.service.embedded_redis import StartError
from cli.service.service import find_port, local_url
from model.errors import ModelError
from worker.auth.key_store import KeyFileError, read_key_file
from worker.settings import Settings
from worker.store.image_store import check_space

_OLDEST = (3, 11)
_WORKING_GB = 2.0
_WHOLE_WORKING_GB = 3.7
"""Memory to work in besides the weights: at least, and with all parts on the GPU."""

_LITTLE_SPACE = 2e9
_FLOAT32_BYTES = 4
_COMPUTED = ("transformer", "vae")
"""Parts that take the precision of the computation; the others stay as they are stored."""


def check_python() -> Finding:
    """The version of Python."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < _OLDEST:
        return Finding("Python", "fault", found, "install Python 3.11 or newer")
    return Finding("Python", "ok", found)


def check_packages() -> Finding:
    """Whether API and worker have the packages that they need, in versions that fit."""
    # Imported here: only `doctor` needs it.
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("kirazuri-server") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            "packages", "warning", "kirazuri-server is not installed", "run `make setup`"
        )
    wrong = []
    for requirement in map(Requirement, lines):
        extras = [{"extra": extra} for extra in ("", "api", "worker")]
        if requirement.marker and not any(map(requirement.marker.evaluate, extras)):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} does not fit {requirement.specifier}")
    if wrong:
        advice = "run `make setup`, or pip install 'kirazuri-server[api,worker,cli]'"
        return Finding("packages", "fault", "; ".join(wrong), advice)
    return Finding("packages", "ok", "all of API and worker are there")


def torch_build() -> tuple[str, str | None] | None:
    """The version of torch and that of its CUDA, read from its files; None without torch.

    Importing torch takes seconds.
    """
    try:
        distribution = importlib.metadata.distribution("torch")
        text = Path(str(distribution.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    found = re.search(r"^cuda\s*(?::[^=]*)?=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return distribution.version, found and found[1]


def check_torch(settings: Settings) -> Finding:
    """Whether the installed torch can use the device of the settings."""
    build = torch_build()
    if build is None:
        return Finding("torch", "fault", "torch is not installed", "run `make setup`")
    version, cuda = build
    found = f"{version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if settings.device.startswith("cuda") and _is_for_cpu(build):
        return Finding(
            "torch",
            "fault",
            f"KIRAZURI_DEVICE is {settings.device}, but torch {version} is built for the CPU only",
            "for a build with CUDA: make clean && make install TORCH_INDEX=\n"
            "or set KIRAZURI_DEVICE=cpu",
        )
    if has_nvidia_driver() and cuda is None and settings.device == "auto":
        advice = "pictures take minutes on a CPU; install torch for CUDA to use the GPU"
        return Finding("torch", "warning", f"{found}, but there is an NVIDIA GPU", advice)
    if settings.device.startswith("cuda") and cuda and not has_nvidia_driver():
        return Finding(
            "torch",
            "warning",  # a sandbox may hide it; `check_device` asks torch itself
            f"KIRAZURI_DEVICE is {settings.device}, but this machine shows no NVIDIA driver",
            "install the driver (nvidia-smi must list the GPU); in a container, pass the GPU in",
        )
    return Finding("torch", "ok", found)


def _is_for_cpu(build: tuple[str, str | None]) -> bool:
    """Whether this torch has neither CUDA nor ROCm."""
    version, cuda = build
    return cuda is None and "+rocm" not in version


def has_nvidia_driver() -> bool:
    """Whether the machine has a driver for NVIDIA GPUs: that of Linux, or that of WSL."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()


def runs_on_cpu(settings: Settings) -> bool:
    """Whether the worker will run on the CPU, as far as is known without torch."""
    build = torch_build()
    is_possible = build is not None and not _is_for_cpu(build)
    if is_possible and build and build[1] is not None:
        is_possible = has_nvidia_driver()
    return settings.device == "cpu" or (settings.device == "auto" and not is_possible)


def check_memory(parts: Parts, settings: Settings, workers: int = 1) -> Finding:
    """Whether the host's memory holds the weights of workers on the CPU."""
    total, free = host_memory()
    found = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    if not parts or not total:
        return Finding("memory", "ok", found)
    need = workers * (_weights(parts, on_cpu=runs_on_cpu(settings)) + _WORKING_GB * 1e9)
    what = f"{found}; weights and work need about {need / 1e9:.1f} GB"
    if need > total:
        advice = "use a machine with more memory, fewer --workers, or a GPU"
        return Finding("memory", "fault", what, advice)
    if need > free:
        return Finding("memory", "warning", what, "end other programs, or the worker may be killed")
    return Finding("memory", "ok", what)


def _weights(parts: Parts, *, on_cpu: bool) -> float:
    """Bytes of the weights in the host's memory: float32 where the CPU computes with them."""
    size = 0
    for name, part in parts.items():
        for tensor in part.tensors.values():
            is_wide = on_cpu and name in _COMPUTED
            size += tensor.count * _FLOAT32_BYTES if is_wide else tensor.size
    return size if on_cpu else 0.0


def device_bytes(parts: Parts, settings: Settings) -> tuple[float, float]:
    """Bytes of GPU memory that are needed at least, and with all parts on the GPU."""
    width = _FLOAT32_BYTES if settings.precision == "float32" else 2
    small = sum(
        tensor.count * width
        for name, part in parts.items()
        if name in _COMPUTED
        for tensor in part.tensors.values()
    )
    texts = sum(
        tensor.size
        for name, part in parts.items()
        if name not in _COMPUTED
        for tensor in part.tensors.values()
    )
    return small + _WORKING_GB * 1e9, small + texts + _WHOLE_WORKING_GB * 1e9


def host_memory() -> tuple[int, int]:
    """Bytes of the host's memory, and those that are free; both 0 if that is unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    sizes = {name: int(size) << 10 for name, size in re.findall(r"(\w+):\s+(\d+) kB", text)}
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    limit = _container_limit()
    return (min(total, limit), min(free, limit)) if limit else (total, free)


def _container_limit() -> int | None:
    """The memory limit of the container."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def check_disk(settings: Settings) -> Finding:
    """Whether the data folder can be written and has space for images and queue."""
    folder = settings.data_dir.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir():
        advice = "choose another folder with --data or KIRAZURI_DATA_DIR"
        return Finding("data folder", "fault", f"{place} is not a folder", advice)
    if not os.access(place, os.W_OK | os.X_OK):
        advice = "choose another folder with --data or KIRAZURI_DATA_DIR, or change its owner"
        return Finding("data folder", "fault", f"{place} cannot be written", advice)
    space = os.statvfs(place)
    free = space.f_bavail * space.f_frsize
    found = f"{folder}, {free / 1e9:.1f} GB free"
    advice = "free some space, or choose another folder with --data or KIRAZURI_DATA_DIR"
    try:
        check_space(place, 0)
    except OSError as exc:
        return Finding("data folder", "fault", f"{found}: {exc.strerror}", advice)
    if free < _LITTLE_SPACE:
        return Finding("data folder", "warning", found, advice)
    return Finding("data folder", "ok", found)


def check_port(host: str, port: int) -> Finding:
    """Whether the port is free, or has a service."""
    free = check_free_port(host, port)
    if free.state == "ok":
        return free
    url = local_url(host, port)
    try:
        answer = httpx2.get(f"{url}/livez", timeout=5, trust_env=False)
        is_ours = answer.json().get("status") == "alive"
    except (httpx2.HTTPError, ValueError, AttributeError):
        is_ours = False
    return Finding("port", "ok", f"{host}:{port} has a service: {url}") if is_ours else free


def check_free_port(host: str, port: int) -> Finding:
    """Whether a service can listen there."""
    try:
        find_port(host, port)
    except StartError as exc:
        is_taken = isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE
        advice = f"end what listens there, or: --port {port + 1}" if is_taken else ""
        return Finding("port", "fault", str(exc), advice)
    return Finding("port", "ok", f"{host}:{port} is free")


def check_files(settings: Settings) -> Iterator[Finding]:
    """The files and folders that settings name."""
    names = ("lora_dir", "policy_file", "tags_file", "keys_file", "c2pa_certificate", "c2pa_key")
    for name in (*names, "c2pa_trust"):
        path = getattr(settings, name)
        if path is None:
            continue
        variable = f"KIRAZURI_{name.upper()}"
        is_there = path.is_dir() if name == "lora_dir" else path.is_file()
        if not is_there:
            advice = f"correct {variable}, or leave it out"
            # The service starts without its LoRA folder, and looks for it again and again.
            state: State = "warning" if name == "lora_dir" else "fault"
            kind = "folder" if name == "lora_dir" else "file"
            problem = f"is not a {kind}" if path.exists() else "is not there"
            yield Finding(name, state, f"{variable}: {path} {problem}", advice)
            continue
        try:
            found = _read_file(name, path)
        except (ModelError, KeyFileError) as exc:
            yield Finding(name, "fault", f"{variable}: {exc}", "correct the file")
        else:
            yield Finding(name, "ok", found)


def _read_file(name: str, path: Path) -> str:
    """What the file of a setting holds, as far as it is read before a start.

    Raises:
        ModelError, KeyFileError: the file is invalid.
    """
    # The policy's modules take as long to import as all other checks together.
    if name == "policy_file":
        from model.policy.policy import load_policy

        load_policy(path)
    elif name == "tags_file":
        from model.prompting.tag_list import read_tag_list

        return f"{path}: {sum(1 for _ in read_tag_list(path))} tags"
    elif name == "keys_file":
        read_key_file(path)
    return str(path)

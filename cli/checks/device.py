"""Asks torch, in a process of its own, what it can compute with."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from cli.checks.checkpoint import Parts
from cli.checks.finding import Finding
from cli.checks.machine import device_bytes
from model.card import load_card
from model.errors import CardError
from model.files.cpu_threads import THREADS_FILE, conditions_here, remembered_threads
from worker.settings import Settings

_SECONDS = 120
_TOO_LARGE_FOR_CPU = 1e9
"""Bytes of weights. docs/checkpoints.md has the measured time of the published sizes."""

_PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "devices": [], "why": ""}
try:
    torch.cuda.init()
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found["devices"].append(
            {"name": torch.cuda.get_device_name(number), "free": free, "total": total}
        )
        torch.zeros(8, device=f"cuda:{number}").sum().item()
except Exception as exc:
    found["why"] = str(exc).splitlines()[0]
torch.zeros(8).sum().item()
print(json.dumps(found))
"""


def check_device(parts: Parts, settings: Settings) -> list[Finding]:
    """Whether torch loads, sees the device of the settings, and its memory is enough."""
    try:
        run = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", _PROGRAM],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        advice = "see whether `nvidia-smi` answers; if not, restart the machine or its driver"
        return [Finding("device", "fault", f"torch does not start within {_SECONDS} s", advice)]
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return [
            Finding("device", "fault", f"torch does not load: {last}", "run `make setup` again")
        ]
    return device_findings(json.loads(run.stdout), parts, settings)


def device_findings(found: Mapping[str, Any], parts: Parts, settings: Settings) -> list[Finding]:
    """Judge what torch said: `devices` with name and bytes, and `why` there are none."""
    devices = found["devices"]
    wants_cuda = settings.device.startswith("cuda")
    if not devices:
        why = f": {found['why']}" if found["cuda"] and found["why"] else ""
        if wants_cuda:
            text = f"KIRAZURI_DEVICE is {settings.device}, but torch sees no GPU{why}"
            return [Finding("device", "fault", text, _driver_advice(str(why)))]
        if why:
            return [Finding("device", "warning", f"the CPU{why}", _driver_advice(why))]
        return [check_cpu("the CPU", parts, settings)]
    if settings.device == "cpu":
        return [check_cpu("the CPU, as KIRAZURI_DEVICE says", parts, settings)]
    number = int(settings.device.partition(":")[2] or 0)
    if number >= len(devices):
        text = f"KIRAZURI_DEVICE is {settings.device}, but there are {len(devices)} GPUs"
        return [Finding("device", "fault", text, "number them from cuda:0")]
    return [_memory(devices[number], parts, settings)]


def check_cpu(where: str, parts: Parts, settings: Settings) -> Finding:
    """Whether the weights are small enough for a CPU; `where` says that it is one."""
    found = f"{where}, {_threads(settings)}"
    tensors = (tensor for part in parts.values() for tensor in part.tensors.values())
    size = sum(tensor.size for tensor in tensors)
    if size < _TOO_LARGE_FOR_CPU:
        return Finding("device", "ok", found)
    advice = (
        "use a GPU; if there is one: KIRAZURI_DEVICE=auto, a driver (nvidia-smi lists the GPU), "
        "and torch with CUDA: make clean && make install TORCH_INDEX="
    )
    text = f"{found}; with {size / 1e9:.1f} GB of weights it takes hours for a picture"
    return Finding("device", "warning", text, advice)


def _threads(settings: Settings) -> str:
    """The CPU threads of a worker, and who chose them."""
    if settings.torch_threads:
        return f"threads: {settings.torch_threads}, as KIRAZURI_TORCH_THREADS says"
    try:
        card = load_card(settings.card).name
    except CardError:
        card = settings.card  # it is reported by a check of its own
    precision = "float32" if settings.precision == "auto" else settings.precision
    here = conditions_here(card, precision=precision, workers=settings.workers)
    threads = remembered_threads(settings.data_dir / THREADS_FILE, here)
    share = f"{here.cores} cores, KIRAZURI_WORKERS {here.workers}"
    if threads is None:
        return f"threads: chosen by the first worker ({share})"
    return f"threads: {threads}, the fastest as measured before ({share})"


def _memory(device: Mapping[str, Any], parts: Parts, settings: Settings) -> Finding:
    free, total = float(device["free"]), float(device["total"])
    usable = min(free, settings.device_memory_gb * 1e9 or free)
    least, everything = device_bytes(parts, settings)
    found = f"{device['name']}, {free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    if not parts:
        return Finding("device", "ok", found)
    if usable < least:
        advice = (
            "end other programs on the GPU (nvidia-smi lists them), raise "
            "KIRAZURI_DEVICE_MEMORY_GB, or use a larger GPU"
        )
        return Finding("device", "fault", f"{found}; {least / 1e9:.1f} GB are needed", advice)
    if usable < everything:
        advice = f"with {everything / 1e9:.1f} GB, prompts would be encoded on the GPU too"
        return Finding("device", "warning", f"{found}; prompts are encoded on the CPU", advice)
    return Finding("device", "ok", f"{found}; {everything / 1e9:.1f} GB are needed")


def _driver_advice(why: str) -> str:
    if not why:
        return ""
    return "see whether `nvidia-smi` lists the GPU; update the driver if it is older than the CUDA"

"""Checks of this machine, with real limits; and the judgement of what torch says of a GPU."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from cli.checks.checkpoint import Parts, check_checkpoint
from cli.checks.device import device_findings
from cli.checks.machine import (
    check_disk,
    check_files,
    check_memory,
    check_packages,
    check_port,
    check_python,
    check_torch,
    device_bytes,
    torch_build,
)
from cli.checks.redis import check_queue
from model.card import load_card
from model.errors import TagListError
from model.files.cpu_threads import THREADS_FILE, conditions_here, remember_threads
from model.prompting.known_tags import load_known_tags
from tests.support.checkpoint_command import CARD, SHIPPED
from worker.settings import Settings

IS_CUDA_BUILD = bool((torch_build() or ("", None))[1])


@pytest.fixture(scope="module")
def parts() -> Parts:
    return check_checkpoint(CARD, SHIPPED)[1]


def test_this_machine_runs_the_tests() -> None:
    assert [check_python().state, check_packages().state] == ["ok", "ok"]
    assert check_torch(Settings(device="cpu")).state == "ok"


def test_the_build_of_torch_is_known_without_importing_it() -> None:
    import torch

    assert torch_build() == (torch.__version__, torch.version.cuda)


@pytest.mark.skipif(IS_CUDA_BUILD, reason="this torch is built for CUDA")
def test_cuda_with_a_torch_for_the_cpu_is_told() -> None:
    finding = check_torch(Settings(device="cuda"))
    assert (finding.state, "KIRAZURI_DEVICE is cuda, but torch" in finding.found) == ("fault", True)


def test_memory_is_compared_with_the_weights(parts: Parts) -> None:
    assert check_memory(parts, Settings(device="cpu")).state == "ok"
    many = check_memory(parts, Settings(device="cpu"), workers=100_000)
    assert (many.state, "fewer --workers" in many.advice) == ("fault", True)


def test_a_data_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    assert check_disk(Settings(data_dir=tmp_path / "new" / "data")).state in ("ok", "warning")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    wrong = check_disk(Settings(data_dir=tmp_path / "file" / "data"))
    assert (wrong.state, "is not a folder" in wrong.found) == ("fault", True)


def test_a_port_is_free_taken_or_that_of_a_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as other:
        port = listener.getsockname()[1]
        other.submit(lambda: listener.accept()[0].close())
        taken = check_port("127.0.0.1", port)
    assert (taken.state, f"--port {port + 1}" in taken.advice) == ("fault", True)
    assert check_port("127.0.0.1", 0).state == "ok"
    foreign = check_port("192.0.2.1", 8000)
    assert (foreign.state, foreign.advice) == ("fault", ""), "another port does not help"
    assert "try another --host" in foreign.found


def test_files_that_settings_name_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("nonsense = [")
    settings = Settings(
        lora_dir=tmp_path, tags_file=tmp_path / "gone.csv", policy_file=tmp_path / "policy.toml"
    )
    states = {finding.check: finding.state for finding in check_files(settings)}
    assert states == {"lora_dir": "ok", "tags_file": "fault", "policy_file": "fault"}
    (later,) = check_files(Settings(lora_dir=tmp_path / "later"))
    assert (later.check, later.state) == ("lora_dir", "warning")
    (folder,) = check_files(Settings(tags_file=tmp_path))
    assert (folder.state, "is not a file" in folder.found) == ("fault", True)


def test_a_start_without_rules_of_its_own_imports_no_policy() -> None:
    """Importing it takes as long as all checks before a start together."""
    code = (
        "import sys, cli.checks.start\n"
        "from worker.settings import Settings\n"
        "assert not list(cli.checks.start.check_files(Settings(_env_file=None)))\n"
        "assert 'model.policy.policy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_list_of_tags_is_read_as_the_service_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    card = load_card("kirazuri-tiny")
    for content in (b"caf\xe9,0,5,\n", b"", b"smile,0,5,\nhat\n", b'smile,0,5,"grin\nhat,0,4,\n'):
        path.write_bytes(content)
        (finding,) = check_files(Settings(tags_file=path))
        with pytest.raises(TagListError) as refused:
            load_known_tags(path, card.prompting)
        assert (finding.state, finding.found) == ("fault", f"KIRAZURI_TAGS_FILE: {refused.value}")
    path.write_bytes(b"tag,type,count,aliases\nsmile,0,5,\nhat,0,4,\n")
    (finding,) = check_files(Settings(tags_file=path))
    assert (finding.state, finding.found) == ("ok", f"{path}: 2 tags")


def test_redis_and_its_clock(redis_url: str, tmp_path: Path) -> None:
    assert [one.check for one in check_queue(Settings(redis_url=SecretStr(redis_url)))] == [
        "Redis", "clock",
    ]  # fmt: skip
    (own,) = check_queue(Settings(data_dir=tmp_path))
    assert (own.state, "`kirazuri up` starts" in own.found) == ("ok", True)
    (gone,) = check_queue(Settings(redis_url=SecretStr("foo://x")))
    assert gone.state == "fault"


GPU = {"name": "Card", "free": 10_000_000_000, "total": 12_000_000_000}


@pytest.mark.parametrize(
    ("found", "settings", "state", "text"),
    [
        ({"devices": [GPU]}, {}, "ok", "Card, 10.0 GB free of 12.0 GB"),
        ({"devices": [GPU]}, {"device": "cpu"}, "ok", "as KIRAZURI_DEVICE says"),
        ({"devices": [GPU]}, {"device": "cuda:1"}, "fault", "there are 1 GPUs"),
        ({"devices": [GPU]}, {"device_memory_gb": 1.0}, "fault", "are needed"),
        ({"devices": []}, {}, "ok", "the CPU"),
        ({"devices": [], "why": "driver too old"}, {}, "warning", "the CPU: driver too old"),
        (
            {"devices": [], "why": "driver too old"}, {"device": "cuda"}, "fault",
            "torch sees no GPU: driver too old",
        ),
    ],
)  # fmt: skip
def test_what_torch_says_of_a_gpu_is_judged(
    parts: Parts, found: dict[str, Any], settings: dict[str, Any], state: str, text: str
) -> None:
    said = {"torch": "2", "cuda": "12.8", "why": "", **found}
    (finding,) = device_findings(said, parts, Settings(**settings))
    assert (finding.state, text in finding.found) == (state, True), finding


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_large_checkpoint_is_too_much_for_a_cpu(
    parts: Parts, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"torch": "2", "cuda": None, "why": "", "devices": [GPU] if device == "cpu" else []}
    (small,) = device_findings(said, parts, Settings(device=device))
    monkeypatch.setattr("cli.checks.device._TOO_LARGE_FOR_CPU", 1e6)
    (large,) = device_findings(said, parts, Settings(device=device))
    assert (small.state, large.state) == ("ok", "warning")
    assert "make install TORCH_INDEX=" in large.advice


def test_little_memory_of_a_gpu_leaves_prompts_to_the_cpu(parts: Parts) -> None:
    least, everything = device_bytes(parts, Settings())
    assert least < everything
    said = {"torch": "2", "cuda": "12.8", "why": "", "devices": [GPU]}
    settings = Settings(device_memory_gb=(least + everything) / 2e9)
    (finding,) = device_findings(said, parts, settings)
    assert (finding.state, "prompts are encoded on the CPU" in finding.found) == ("warning", True)


def test_the_number_of_threads_is_told(parts: Parts, tmp_path: Path) -> None:
    said: dict[str, Any] = {"cuda": None, "why": "", "devices": []}

    def told(**settings: Any) -> str:
        (finding,) = device_findings(said, parts, Settings(data_dir=tmp_path, **settings))
        return finding.found

    assert "threads: 5, as KIRAZURI_TORCH_THREADS says" in told(torch_threads=5)
    assert "chosen by the first worker" in told()
    here = conditions_here("kirazuri-tiny", precision="float32", workers=1)
    remember_threads(tmp_path / THREADS_FILE, here, 1)
    assert "threads: 1, the fastest as measured before" in told()
    assert "chosen by the first worker" in told(precision="bfloat16")
    assert "chosen by the first worker" in told(workers=2)

"""The number of threads is remembered by what it depends on; a damaged file is no obstacle."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from model.files.cpu_threads import (
    ThreadConditions,
    conditions_here,
    remember_threads,
    remembered_threads,
)

HERE = ThreadConditions("EPYC", 8, 2, "2.13.0", "kirazuri-tiny", "float32")


def test_it_is_remembered_by_all_conditions(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "threads.json"
    assert remembered_threads(file, HERE) is None
    assert remember_threads(file, HERE, 2) == 2
    assert remembered_threads(file, HERE) == 2
    others = [
        replace(HERE, processor="Xeon"), replace(HERE, cores=16), replace(HERE, workers=1),
        replace(HERE, torch="2.14.0"), replace(HERE, card="kirazuri-v1"),
        replace(HERE, precision="bfloat16"),
    ]  # fmt: skip
    for index, other in enumerate(others):
        assert remembered_threads(file, other) is None, other
        remember_threads(file, other, 1 + index % 4)
    for index, other in enumerate(others):
        assert remembered_threads(file, other) == 1 + index % 4, other
    assert remembered_threads(file, HERE) == 2


def test_the_worker_that_wrote_first_decides(tmp_path: Path) -> None:
    file = tmp_path / "threads.json"
    assert [remember_threads(file, HERE, threads) for threads in (4, 1, 2)] == [4, 4, 4]


def entry(threads: object) -> dict[str, object]:
    return {
        "processor": "EPYC", "cores": 8, "workers": 2, "torch": "2.13.0", "card": "kirazuri-tiny",
        "precision": "float32", "threads": threads,
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [b"", b"[{", b"\xff\x00", b"{}", b"7", b"[1, null, []]", b"[" * 100_000]
    + [json.dumps([entry(threads)]).encode() for threads in (0, -1, 5, 1e9, "2", None, True, 2.0)],
    ids=lambda content: content[:12].decode(errors="replace") + content[-12:].decode("latin1"),
)
def test_a_damaged_file_is_measured_again_and_replaced(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "threads.json"
    file.write_bytes(content)
    assert remembered_threads(file, HERE) is None
    assert remember_threads(file, HERE, 3) == 3
    assert remembered_threads(file, HERE) == 3


def test_a_file_that_cannot_be_written_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "threads.json").mkdir()
    assert remember_threads(tmp_path / "threads.json", HERE, 3) == 3
    assert "cannot be remembered" in caplog.text
    assert remembered_threads(tmp_path / "threads.json", HERE) is None


def test_the_conditions_of_this_machine() -> None:
    found = conditions_here("a", precision="float32", workers=1000)
    assert found.processor
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.most == 1, "a worker has at least one thread"
    assert replace(found, cores=8, workers=3).most == 2

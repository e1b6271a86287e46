"""Loading chooses the number of CPU threads: as set, as remembered, or as measured now."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from model.engine import loading
from model.engine.compiled.paths import CompiledPaths
from model.engine.loading import Compiling, load_engine
from model.files import cpu_threads
from model.network.load import load_components
from model.network.transformer.forward import Transformer
from tests.support.random_checkpoint import WrittenCheckpoint


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most threads of each measurement. On four cores, three threads are the fastest."""
    found: list[int] = []

    def measure(run: Callable[[], object], most: int, **_: Any) -> Mapping[int, float]:
        run()
        found.append(most)
        return {count: (0.1, 0.08, 0.05, 0.06)[count - 1] for count in range(1, most + 1)}

    monkeypatch.setattr(loading, "time_threads", measure)
    monkeypatch.setattr(cpu_threads, "cores", lambda: 4)
    return found


def threads_of(written: WrittenCheckpoint, file: Path | None, **options: Any) -> int:
    engine = load_engine(
        written.card, written.folder, precision="float32", token_budget=8192, threads_file=file,
        **{"device": "cpu", "threads": 0, **options},
    )  # fmt: skip
    assert engine.description()["threads"] == torch.get_num_threads()
    return torch.get_num_threads()


def test_the_number_of_threads_is_measured_once(
    written: WrittenCheckpoint, tmp_path: Path, measured: list[int]
) -> None:
    file = tmp_path / "threads.json"
    assert [threads_of(written, file) for _ in range(3)] == [3, 3, 3]
    assert measured == [4]
    file.write_bytes(b"[{damaged")
    assert threads_of(written, file) == 3
    assert measured == [4, 4]
    assert threads_of(written, file, workers=2) == 2, "two workers share the cores"
    assert threads_of(written, file, workers=9) == 1
    assert measured == [4, 4, 2], "there is nothing to choose for nine"


def test_nothing_is_measured_against_the_setting_or_without_a_file(
    written: WrittenCheckpoint, tmp_path: Path, measured: list[int]
) -> None:
    assert threads_of(written, tmp_path / "threads.json", threads=2) == 2
    threads_of(written, None)
    assert measured == []


def test_a_long_forward_takes_every_core_without_a_measurement(
    written: WrittenCheckpoint,
    tmp_path: Path,
    measured: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_MEASURED_OPERATIONS", 1.0)
    assert threads_of(written, tmp_path / "threads.json", workers=2) == 2
    assert measured == []


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("cpu", False)])
def test_only_a_gpu_gets_templates(
    written: WrittenCheckpoint, tmp_path: Path, device: str, expected: bool
) -> None:
    cpu = torch.device("cpu")
    parts = load_components(written.card, written.folder, device=cpu, dtype=torch.float32)
    transformer = Transformer(parts.transformer, dtype=torch.float32)
    compiling = Compiling("always", tmp_path, templates=True)
    found = loading._paths(
        written.card, parts, transformer, compiling, torch.device(device), torch.float32, None
    )
    assert isinstance(found, CompiledPaths)
    assert found._plan.templates == expected

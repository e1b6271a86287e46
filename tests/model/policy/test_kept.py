"""What takes long to compute is kept in files: never out of date, damaged, or in the way."""

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.policy import kept as module
from model.policy.kept import kept
from tests.support.disks import limited_files

INPUTS = [["a", "é", "한"], 1]
VALUE = {"words": ["é", "한", "a b"], "numbers": [1, [2, -3]], "empty": [], "is_true": True}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled modules are kept during the test."""
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "compiled"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return tmp_path / "compiled"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def is_computed(inputs: object = INPUTS, name: str = "example") -> bool:
    """Whether a value is computed anew; checks it, too."""
    calls = []

    def compute() -> object:
        calls.append(1)
        return VALUE

    assert kept(name, inputs, compute) == VALUE
    return bool(calls)


def test_a_value_is_computed_once(folder: Path) -> None:
    assert is_computed()
    (file,) = files(folder)
    assert file.name.startswith("example-")
    assert file.name.endswith(f".{sys.implementation.cache_tag}.kept")
    assert not is_computed()
    assert files(folder) == [file]


def test_it_is_beside_the_compiled_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    path = module._path("example", "0" * 64)
    assert path.parent == Path(module.__file__).parent / "__pycache__"


def test_all_that_decides_is_in_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_computed()
    assert is_computed([["a", "é", "한"], 2])
    assert is_computed([["a", "é한"], 1])
    assert is_computed(name="other")
    for place, other in (
        ("model.policy.kept._CODE", "other code"),
        ("model.policy.kept.version", lambda package: f"9 of {package}"),
        ("sys.version", "3.99"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(place, other)
            assert is_computed(), place
            assert not is_computed(), place
    assert not is_computed()


def test_code_means_each_module_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(module.__file__).parent
    assert module._digest_of_code() == module._CODE
    read: list[Path] = []
    read_bytes = Path.read_bytes

    def other(path: Path) -> bytes:
        read.append(path)
        return read_bytes(path) + (b"#" if path.name == "languages.py" else b"")

    monkeypatch.setattr(Path, "read_bytes", other)
    assert module._digest_of_code() not in (None, module._CODE)
    names = ("folding.py", "normalize.py", "patterns.py", "spellings.py", "ages/languages.py")
    assert {package / name for name in names} <= set(read)


def test_without_sources_nothing_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation may have compiled modules only."""
    monkeypatch.setattr(module, "__file__", str(folder / "policy" / "kept.pyc"))
    assert module._digest_of_code() is None
    monkeypatch.setattr(module, "_CODE", None)
    assert is_computed()
    assert is_computed()
    assert files(folder) == []


def test_with_packages_of_unknown_versions_nothing_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PACKAGES", ("no-such-package",))
    assert is_computed()
    assert is_computed()
    assert files(folder) == []


def cut(data: bytes) -> bytes:
    return data[:-1]


def cut_to_the_seal(data: bytes) -> bytes:
    return data[:32]


def emptied(data: bytes) -> bytes:
    return b""


def changed_seal(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def changed_value(data: bytes) -> bytes:
    return data.replace(b"-3", b"-4")


def lengthened(data: bytes) -> bytes:
    return data + b" "


@pytest.mark.parametrize(
    "damage", [cut, cut_to_the_seal, emptied, changed_seal, changed_value, lengthened]
)
def test_a_damaged_file_is_written_again(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    is_computed()
    (file,) = files(folder)
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole))
    assert is_computed()
    assert file.read_bytes() == whole
    assert not is_computed()


def test_a_file_is_replaced_as_a_whole(folder: Path) -> None:
    """Who reads it meanwhile, reads the one that was there."""
    is_computed()
    (file,) = files(folder)
    file.write_bytes(b"before")
    with file.open("rb") as reader:
        assert is_computed()
        assert reader.read() == b"before"
    assert not is_computed()


def test_the_file_of_other_inputs_is_foreign(folder: Path) -> None:
    is_computed()
    (file,) = files(folder)
    kept("example", "other inputs", lambda: "other value")
    (other,) = set(files(folder)) - {file}
    file.write_bytes(other.read_bytes())
    assert is_computed()
    assert not is_computed()


def test_without_compiled_modules_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert is_computed()
    assert is_computed()
    assert files(folder) == []
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert is_computed()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert not is_computed(), "it may be read"
    monkeypatch.setattr(sys.implementation, "cache_tag", None)
    assert is_computed(), "this Python keeps no compiled modules"


def test_a_folder_that_cannot_be_written_is_no_error(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "model.policy.kept")
    folder.write_text("not a folder")
    assert is_computed()
    assert is_computed()
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert "not kept" in caplog.text
    assert folder.read_text() == "not a folder"


def test_a_folder_in_the_place_of_the_file_is_no_error(folder: Path) -> None:
    is_computed()
    (file,) = files(folder)
    file.unlink()
    file.mkdir()
    assert is_computed()
    assert files(folder) == []


def test_a_full_disk_is_no_error_and_leaves_nothing(folder: Path) -> None:
    with limited_files(40):
        assert is_computed()
    assert files(folder) == []
    assert is_computed()
    assert not is_computed()


def test_old_files_are_deleted(folder: Path) -> None:
    is_computed(0)
    (first,) = files(folder)
    unfinished = first.with_name(f"{first.name}-0badcafe")
    others = [first.with_name(name) for name in ("example-1.cpython-39.kept", "example.py")]
    for path in (unfinished, *others):
        path.touch()
    for number in range(1, 20):
        assert is_computed(number)
        assert not is_computed(number)
    own = set(files(folder)) - set(others)
    assert len(own) == 8
    assert first not in own
    assert unfinished not in own
    assert not any(map(is_computed, range(12, 20))), "the newest stay"
    assert is_computed(11)
    assert all(path.exists() for path in others)


RACE = """
import sys
from model.policy.kept import kept
for number in range(40):
    assert kept("race", [number % 12], lambda: [number % 12] * 5000) == [number % 12] * 5000
"""


def test_processes_may_write_at_the_same_time(folder: Path) -> None:
    command = [sys.executable, "-X", f"pycache_prefix={folder}", "-c", RACE]
    environment = {"PYTHONDONTWRITEBYTECODE": ""}
    running = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    names = [file.name for file in files(folder) if file.name.startswith("race-")]
    assert 0 < len(names) <= 12
    assert all(name.endswith(".kept") for name in names), "nobody leaves half a file"

"""Headers equal those that the library reads; every other file is refused with a reason."""

import json
import pickle
import struct
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.errors import CheckpointError
from model.files.safetensors_header import encode_header, read_header
from tests.support.paths import DATA
from tests.support.refusals import message_of


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tensors = {
        "a.weight": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
        "b": torch.ones((), dtype=torch.float32),
        "c": torch.zeros(0, 4, dtype=torch.float16),
        "d": torch.ones(3, dtype=torch.float8_e4m3fn),
        "ü": torch.ones(1, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "saved.safetensors", metadata={"ss_base_model_version": "anima"})
    return tmp_path / "saved.safetensors"


def test_the_header_is_what_the_library_reads(saved: Path) -> None:
    header = read_header(saved)
    content = saved.read_bytes()
    assert header.size == len(content)
    assert header.metadata == {"ss_base_model_version": "anima"}
    with safe_open(saved, framework="pt") as file:
        assert set(header.tensors) == set(file.keys())
        for key, tensor in header.tensors.items():
            view, value = file.get_slice(key), file.get_tensor(key)
            assert (tensor.key, tensor.path) == (key, saved)
            assert (tensor.dtype, tensor.shape) == (view.get_dtype(), tuple(view.get_shape()))
            assert tensor.count == value.numel()
            stored = content[tensor.offset : tensor.offset + tensor.size]
            assert stored == value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_the_library_reads_written_headers(saved: Path, tmp_path: Path) -> None:
    header, path = read_header(saved), tmp_path / "written.safetensors"
    tensors = sorted(header.tensors.values(), key=lambda tensor: tensor.offset)
    start = encode_header(((t.key, t.dtype, t.shape) for t in tensors), header.metadata)
    assert len(start) % 8 == 0
    content = saved.read_bytes()
    path.write_bytes(start + b"".join(content[t.offset : t.offset + t.size] for t in tensors))
    theirs, mine = load_file(saved), load_file(path)
    assert set(theirs) == set(mine)
    assert all(torch.equal(theirs[key], mine[key]) for key in theirs)
    assert read_header(path).metadata == header.metadata


def test_every_truncation_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    for size in range(len(content)):
        saved.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"saved\.safetensors is truncated"):
            read_header(saved)
    saved.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="its tensors end at byte"):
        read_header(saved)


def test_pickles_are_refused_by_name(saved: Path) -> None:
    for name in ("a.ckpt", "a.pt", "a.pth", "a.bin", "a.PKL"):
        saved = saved.rename(saved.with_name(name))
        with pytest.raises(CheckpointError, match=rf"{name} is named like a pickle; .* run code"):
            read_header(saved)


def test_other_contents_are_refused_with_what_they_are(tmp_path: Path) -> None:
    path, archive = tmp_path / "a.safetensors", tmp_path / "archive"
    torch.save({"weight": torch.ones(2)}, archive)
    contents = {
        f"pickle protocol {protocol}": (
            pickle.dumps({"weight": list(range(100))}, protocol=protocol),
            "a.safetensors is a pickle",
        )
        for protocol in (2, 3, 4, 5)
    } | {
        "torch.save": (archive.read_bytes(), "a.safetensors is a zip archive"),
        "GGUF": (b"GGUF\3\0\0\0" + bytes(100), "quantised"),
        "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer"),
        "HTML": (b"<!DOCTYPE html><html></html>", "web page"),
        "huge length": (b"\xff" * 8, "truncated"),
    }
    wrong = {}
    for name, (content, reason) in contents.items():
        path.write_bytes(content)
        message = message_of(CheckpointError, partial(read_header, path))
        if reason not in message:
            wrong[name] = message
    assert wrong == {}


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"title": "x"}}).encode()
    path = write(tmp_path / "a.safetensors", header.ljust(0x0280))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert read_header(path).metadata == {"title": "x"}


def test_metadata_that_is_null_is_read_as_the_library_reads_it() -> None:
    path = DATA / "field" / "lora" / "meta-null.safetensors"
    header = read_header(path)
    with safe_open(path, "numpy") as library:
        assert list(header.tensors) == list(library.keys())
        assert header.metadata == (library.metadata() or {})


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


INVALID_HEADERS: list[tuple[Any, str]] = [
    (b"[1]", "not a safetensors file"),
    (b"{", "not a safetensors file"),
    (b"[" * 200_000, "not a safetensors file"),
    (b'{"a": \xff}', "not a safetensors file"),
    ({"a": 1}, "not a safetensors file"),
    ({"a": {}}, "dtype"),
    ({"a": entry(shape=[3])}, "a F32"),
    ({"a": entry(shape=[-2])}, "not a whole number"),
    ({"a": entry(shape=[2**63])}, "not a whole number"),
    ({"a": entry(shape=[1] * 1000)}, "has 1000 axes"),
    ({"a": entry(shape=[2.0])}, "not a whole number"),
    ({"a": entry(shape=[True, 2])}, "not a whole number"),
    ({"a": entry(data_offsets=[8, 0])}, "does not take"),
    ({"a": entry(data_offsets=[0])}, "not a safetensors file"),
    ({"a": entry(), "b": entry()}, "b starts at byte"),
    ({"a": entry(shape=[1], data_offsets=[4, 8])}, "a starts at byte"),
    (
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": {}}',
        "names a key twice",
    ),
    ({"__metadata__": {"a": 1}, "a": entry()}, "metadata"),
    ({"__metadata__": [], "a": entry()}, "not a safetensors file"),
    ({"__metadata__": {"a": None}, "a": entry()}, "metadata"),
]


def test_an_invalid_header_is_refused_with_path_and_reason(tmp_path: Path) -> None:
    wrong = []
    for header, reason in INVALID_HEADERS:
        path = write(tmp_path / "a.safetensors", header, bytes(8))
        message = message_of(CheckpointError, partial(read_header, path))
        if reason not in message or str(path) not in message:
            wrong.append((header, message))
    assert wrong == []


@given(noise=st.binary(min_size=1, max_size=40), at=st.integers(0, 400))
def test_a_corrupted_file_is_read_or_refused(
    noise: bytes, at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "corrupted.safetensors"
    save_file({"a": torch.ones(5), "b": torch.ones(2, 3)}, path)
    content = bytearray(path.read_bytes())
    content[at : at + len(noise)] = noise
    path.write_bytes(content)
    try:
        header = read_header(path)
    except CheckpointError:
        return
    assert sum(tensor.size for tensor in header.tensors.values()) <= header.size


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("none.safetensors", "folder.safetensors"):
        with pytest.raises(CheckpointError, match=f"no weight file at .*{name}"):
            read_header(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"a\.onnx is not a \.safetensors file"):
        read_header(tmp_path / "a.onnx")

"""Random headers and pictures are read or refused, without other errors."""

import io
import json
import struct
import zlib
from base64 import b64encode
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from api.http.errors import UnreadableImage
from api.routes.images.evidence import Evidence
from api.submit.images.decoding import InputImageRefused, decode_image
from api.submit.images.input_images import ImageFields
from cli.client.errors import ClientError
from cli.client.source import keep_offered, read_source
from model.card import load_card
from model.errors import CheckpointError
from model.files.lora.folder import LoraFolder
from model.files.safetensors_header import encode_header, read_header
from tests.fuzz.effort import fuzzed
from tests.fuzz.recipe_notes import CAPABILITIES, assert_shown_well
from tests.fuzz.strategies import JSON, TEXTS
from worker.images.c2pa_manifest import C2paReader
from worker.images.metadata import UnreadableFile, read_metadata
from worker.images.size_limits import MAX_PIXELS
from worker.settings import Settings

CARD = load_card("kirazuri-tiny")


@cache
def folder() -> Path:
    """A folder for the whole run."""
    return Path(_FOLDER.name)


_FOLDER = TemporaryDirectory(prefix="kirazuri-fuzz-")


READER = C2paReader(Settings(_env_file=None))


# -- safetensors -----------------------------------------------------------------------------------

STEM = "diffusion_model.blocks.0.self_attn.q_proj"
KEYS = st.one_of(
    st.sampled_from(
        [f"{STEM}.lora_A.weight", f"{STEM}.lora_B.weight", f"{STEM}.alpha", f"{STEM}.dora_scale",
         f"{STEM}.lokr_w1", f"{STEM}.lokr_w2", f"{STEM}.hada_w1_a", "lora_unet_a.lora_down.weight"]
    ),
    TEXTS,
)  # fmt: skip
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "F8_E4M3", "U4"]), JSON),
        "shape": st.one_of(st.lists(st.integers(0, 9), max_size=3), JSON),
        "data_offsets": st.one_of(
            st.tuples(st.integers(0, 64), st.integers(0, 64)).map(list), JSON
        ),
    }
)
METADATA = st.dictionaries(
    st.one_of(
        st.sampled_from(["ss_tag_frequency", "ss_sd_model_name", "modelspec.architecture",
                         "modelspec.trigger_phrase", "base_model"]),
        TEXTS,
    ),
    st.one_of(
        TEXTS,
        st.dictionaries(TEXTS, st.dictionaries(TEXTS, JSON), max_size=3).map(json.dumps),
    ),
    max_size=4,
)  # fmt: skip
HEADERS = st.one_of(
    st.dictionaries(KEYS, st.one_of(ENTRIES, JSON), max_size=4),
    st.tuples(st.dictionaries(KEYS, ENTRIES, max_size=3), METADATA).map(
        lambda pair: {**pair[0], "__metadata__": pair[1]}
    ),
    JSON,
)


def file_of_header(header: Any, tail: int) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(tail)


WHOLE = encode_header(
    [(f"{STEM}.lora_A.weight", "F32", (1, 2)), (f"{STEM}.lora_B.weight", "F32", (2, 1))], {}
)


def lora_with(metadata: dict[str, str]) -> bytes:
    """A valid LoRA with this metadata."""
    tensors = [(f"{STEM}.lora_A.weight", "F32", (1, 2)), (f"{STEM}.lora_B.weight", "F32", (2, 1))]
    return encode_header(tensors, metadata) + bytes(16)


@fuzzed
@given(
    st.one_of(
        st.tuples(HEADERS, st.integers(0, 64)).map(lambda pair: file_of_header(*pair)),
        st.binary(max_size=64),
        METADATA.map(lora_with),
    )
)
@example(struct.pack("<Q", 2**64 - 1))
@example(struct.pack("<Q", 100_000) + b"[" * 100_000)
@example(lora_with({"ss_tag_frequency": '{"a": {"b": 1e999}}'}))
@example(lora_with({"ss_tag_frequency": '{"a": {"b": ' + "9" * 5000 + "}}"}))
@example(file_of_header({"a": {"dtype": [], "shape": [], "data_offsets": [0, 0]}}, 0))
@example(
    file_of_header({"a": {"dtype": "F32", "shape": [10**400] * 99, "data_offsets": [0, 4]}}, 4)
)
def test_a_lora_is_listed_or_refused(data: bytes) -> None:
    path = folder() / "lora.safetensors"
    path.write_bytes(data)
    try:
        header = read_header(path)
        refusal = ""
    except CheckpointError as exc:
        refusal = str(exc)
    if not refusal:
        assert sum(tensor.size for tensor in header.tensors.values()) < len(data)
    assert len(refusal) < 2000
    loras = LoraFolder(folder())
    loras.refresh()
    for file in loras.files.values():
        shown = [file.base or "", file.architecture or "", *file.trigger_words]
        assert all(text.isprintable() and len(text) <= 200 for text in shown)


# -- pictures --------------------------------------------------------------------------------------


def _file(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.effect_noise((24, 16), 90).convert("RGB")
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112], exif[0x9286] = 6, b"UNICODE\0" + "Steps: 20".encode("utf-16-be")
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "1girl\nSteps: 20", zip=True)
    texts.add_itxt("prompt", "{}", zip=True)
    return [
        _file("PNG", pnginfo=texts, exif=exif), _file("JPEG", exif=exif, progressive=True),
        _file("WEBP", exif=exif, xmp=b"<x/>"), _file("AVIF", exif=exif), _file("GIF"),
    ]  # fmt: skip


SEEDS = _seeds()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture file with bytes changed, inserted or removed, or with its end cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(data) - 1))
        new = draw(
            st.sampled_from([b"", b"\0", b"\xff", b"\xff\xff\xff\xff"]) | st.binary(max_size=6)
        )
        data[place : place + draw(st.integers(0, 8))] = new
        if not data:
            return b""
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@st.composite
def png_of_chunks(draw: st.DrawFn) -> bytes:
    """A PNG with complete chunks and random contents."""
    width, height = draw(st.tuples(*[st.sampled_from([0, 1, 8, 2**16, 2**31 - 1, 2**32 - 1])] * 2))
    depth, colour = draw(st.sampled_from([1, 2, 8, 16, 99])), draw(st.sampled_from([0, 2, 3, 4, 6]))
    head = chunk(
        b"IHDR",
        struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw(st.integers(0, 2))),
    )
    names = st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"PLTE", b"tRNS", b"acTL",
                             b"fcTL", b"gAMA", b"pHYs", b"sRGB", b"cHRM", b"IDAT"])  # fmt: skip
    contents = st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=40).map(lambda raw: b"parameters\0\0" + zlib.compress(raw)),
        st.just(b"parameters\0\0" + zlib.compress(b"a" * 3_000_000)),
    )
    middle = b"".join(chunk(draw(names), draw(contents)) for _ in range(draw(st.integers(0, 5))))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + middle
        + chunk(b"IDAT", zlib.compress(b"\0" * 200))
        + chunk(b"IEND", b"")
    )


PICTURES = st.one_of(damaged(), png_of_chunks(), st.binary(max_size=64))


@pytest.mark.filterwarnings("ignore::UserWarning")
@fuzzed
@given(PICTURES)
def test_a_picture_is_opened_or_refused(data: bytes) -> None:
    try:
        image = decode_image(data)
    except InputImageRefused:
        return
    assert image.width * image.height <= MAX_PIXELS


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about broken files
@fuzzed
@given(PICTURES)
def test_the_texts_of_a_picture_are_found_or_it_is_refused(data: bytes) -> None:
    path = folder() / "picture"
    path.write_bytes(data)
    with suppress(UnreadableFile):
        read_metadata(path)
    with suppress(ClientError):
        assert_shown_well(keep_offered(read_source(path), CAPABILITIES))


@pytest.mark.filterwarnings("ignore::UserWarning")
@fuzzed
@given(PICTURES)
def test_a_picture_is_verified_without_errors(data: bytes) -> None:
    try:
        evidence = Evidence(data, READER)
    except UnreadableImage:
        return
    told = evidence.verify(None, kept_seconds=60).model_dump_json()
    assert json.loads(told)["verdict"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@fuzzed
@given(
    st.one_of(
        TEXTS,
        PICTURES.map(lambda data: b64encode(data).decode()),
        st.tuples(st.sampled_from(["data:", "DATA:image/png", "data:;x=y"]), TEXTS).map(
            lambda pair: f"{pair[0]};base64,{pair[1]}"
        ),
        st.tuples(
            st.sampled_from(["", "/images/", "http://a/images/", "../", "/images/../", "images/"]),
            st.from_regex(r"[0-9a-f]{39,41}\.[a-z]{2,5}", fullmatch=True),
        ).map("".join),
        st.sampled_from(["/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/", "\0"]),
    )
)
@example("https://" + "/images/" * 250)
@example("data:" + "a" * 100_000)
def test_a_picture_reference_gives_a_picture_or_a_refusal(text: str) -> None:
    fields = ImageFields({})
    opened = fields.decode("init_image", text)
    assert (opened is None) == bool(fields.errors)
    assert all(error["loc"] == ("body", "init_image") for error in fields.errors)

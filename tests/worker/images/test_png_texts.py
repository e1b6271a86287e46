"""Text chunks of PNG files: any encoding is read, and several different texts are not guessed."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.foreign_images import imported, refusal
from worker.images.metadata import read_metadata

PARAMETERS = "\nSteps: 20, Sampler: Euler a, Seed: 5, Size: 64x64"
TEXT = f"1girl, café, 猫\nNegative prompt: bad{PARAMETERS}"
OTHER = TEXT.replace("Seed: 5", "Seed: 9")
GRAPH = (
    '{"1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "seed": 7}},'
    ' "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bird"}}}'
)

UNCLEAR = "the encoding of the text is not known: it is neither UTF-8 nor ASCII"
Chunk = tuple[bytes, bytes]


def text(content: bytes, keyword: bytes = b"parameters") -> Chunk:
    return b"tEXt", keyword + b"\0" + content


def compressed(content: bytes, keyword: bytes = b"parameters") -> Chunk:
    return b"zTXt", keyword + b"\0\0" + zlib.compress(content)


def international(content: bytes, keyword: bytes = b"parameters") -> Chunk:
    return b"iTXt", keyword + b"\0\0\0\0\0" + content


def png(folder: Path, chunks: Sequence[Chunk], *, after_pixels: bool = False) -> Path:
    info = PngInfo()
    for kind, content in chunks:
        info.add(kind, content, after_pixels)
    path = folder / "image.png"
    Image.new("RGB", (16, 16), "gray").save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("after_pixels", [False, True])
def test_texts_in_every_encoding_are_read(tmp_path: Path, after_pixels: bool) -> None:
    failures = []
    for write in (text, compressed):
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32"):
            path = png(tmp_path, [write(TEXT.encode(encoding))], after_pixels=after_pixels)
            found = imported(path)
            if found.fields["prompt"] != "1girl, café, 猫" or found.fields["seed"] != 5:
                failures.append((write.__name__, encoding, found.fields))
        big = b"\xfe\xff" + TEXT.encode("utf-16-be")
        assert imported(png(tmp_path, [write(big)])).fields["prompt"] == "1girl, café, 猫"
    assert failures == []
    latin = TEXT.replace("猫", "").encode("latin-1")
    found = imported(png(tmp_path, [text(latin)]))
    assert found.fields["prompt"] == "1girl, café,"
    assert UNCLEAR in found.notes
    assert UNCLEAR not in imported(png(tmp_path, [text(TEXT.encode())])).notes
    assert UNCLEAR not in imported(png(tmp_path, [international(TEXT.encode())])).notes


def test_differing_infotexts_in_several_chunks_are_noted(tmp_path: Path) -> None:
    one, other = TEXT.encode(), OTHER.encode()
    note = "the text chunks have 2 different infotexts; infotext is used instead"
    for keywords in ((b"Comment", b"Description"), (b"parameters", b"Comment")):
        first, second = keywords
        found = imported(png(tmp_path, [text(one, first), text(other, second)]))
        assert (found.fields["seed"], note in found.notes) == (5, True), keywords
        assert note not in imported(png(tmp_path, [text(one, first), text(one, second)])).notes
    found = imported(png(tmp_path, [text(b"hello"), text(one, b"Comment")]))
    assert found.fields["seed"] == 5, "a text that is no recipe hides none"


def test_several_texts_that_differ_are_refused(tmp_path: Path) -> None:
    one, other = TEXT.encode(), OTHER.encode()
    for chunks in (
        [text(one), text(other)],
        [text(one), international(other)],
        [compressed(one), text(other)],
        [text(one), text(other, b"Parameters")],
        [text(one), text(one), international(other)],
    ):
        for after_pixels in (False, True):
            path = png(tmp_path, chunks, after_pixels=after_pixels)
            assert refusal(path) == "the file has several different texts 'parameters'"


def test_several_texts_that_are_equal_are_one(tmp_path: Path) -> None:
    one = TEXT.encode()
    for chunks in (
        [text(one), text(one)],
        [text(one), compressed(one), international(one)],
        [text(b""), international(one), text(one.replace(b"\n", b"\r\n") + b"\r\n")],
    ):
        assert imported(png(tmp_path, chunks)).notes == [
            f"{name}: not in the file; the default is used" for name in ("cfg_scale", "scheduler")
        ]


def test_another_text_is_used_with_a_note(tmp_path: Path) -> None:
    chunks = [text(TEXT.encode()), text(OTHER.encode()), text(GRAPH.encode(), b"prompt")]
    found = imported(png(tmp_path, chunks))
    assert found.fields["prompt"] == "a bird"
    assert found.notes[0] == (
        "the file has several different texts 'parameters'; comfyui is used instead"
    )


def test_another_text_in_exif_is_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x9286] = b"UNICODE\0" + OTHER.encode("utf-16-be")
    info = PngInfo()
    info.add(*text(TEXT.encode()))
    path = tmp_path / "image.png"
    Image.new("RGB", (16, 16)).save(path, pnginfo=info, exif=exif.tobytes())
    found = imported(path)
    assert found.fields["seed"] == 5
    assert "EXIF has another text than the chunk `parameters`" in found.notes[0]


def test_a_file_without_its_end_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = png(tmp_path, [text(TEXT.encode())])
    path.write_bytes(path.read_bytes()[:-12])
    infotext = read_metadata(path).infotext
    assert infotext is not None
    assert infotext.startswith("1girl")

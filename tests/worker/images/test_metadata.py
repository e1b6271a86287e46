"""Tests the texts in image files of this service and of other programs."""

import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from model.recipes.infotext import read_infotext
from model.recipes.recipe import Recipe, read_document
from model.request import ImageFormat
from tests.support.requests import make_request
from worker.images import metadata
from worker.images.encode import encode_image
from worker.images.metadata import ImageTexts, UnreadableFile, read_metadata

FORMATS: tuple[ImageFormat, ...] = ("png", "webp", "jpeg", "avif")
RECIPE = Recipe(card="kirazuri-tiny", checkpoint="ab" * 32, torch="2.13.0+cpu", service="k 0.1")
PIXELS = numpy.full((16, 16, 3), 128, dtype=numpy.uint8)
ODD = (
    "a \"quoted\" <tag> & 'apostrophe', 青い髪 ✨ \\(medium\\)\n"
    "Negative prompt: no\ttab \ufffe\uffff"
)


def saved(folder: Path, image_format: ImageFormat, **changes: Any) -> Path:
    request = make_request(image_format=image_format, **changes)
    path = folder / f"picture.{image_format}"
    path.write_bytes(encode_image(PIXELS, request=request, recipe=RECIPE, seed=5))
    return path


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_document_holds_the_request_and_the_recipe(
    tmp_path: Path, image_format: ImageFormat
) -> None:
    changes: dict[str, Any] = {
        "prompt": ODD,
        "negative_prompt": "<low>",
        "cfg_scale": 4.7,
        "num_images": 3,
    }
    inside = read_metadata(saved(tmp_path, image_format, **changes))
    assert inside.document is not None
    document = read_document(inside.document)
    expected = make_request(image_format=image_format, **changes | {"seed": 5, "num_images": 1})
    excluded = {"deterministic", "previews"}
    assert document.request == expected.model_dump(mode="json", exclude=excluded)
    assert document.recipe == RECIPE
    assert inside.infotext is not None
    assert inside.infotext.startswith(ODD.partition("\n")[0])
    again = read_infotext(inside.infotext)
    assert (again.fields["prompt"], again.fields["negative_prompt"]) == (ODD, "<low>")
    assert inside.workflow is None


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_same_image_is_the_same_file(image_format: ImageFormat) -> None:
    """Neither the run of a job nor the position of the image in it changes the file."""

    def data(own_seed: int, **changes: Any) -> bytes:
        request = make_request(image_format=image_format, **changes)
        return encode_image(PIXELS, request=request, recipe=RECIPE, seed=own_seed)

    plain = data(7, seed=7)
    assert data(7, seed=7, deterministic=True) == plain
    assert data(7, seed=7, previews=True) == plain
    assert data(7, seed=5, num_images=3) == plain
    assert data(8, seed=8) != plain


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize(("level", "mark"), [("minimal", metadata.TRAINED), ("none", None)])
def test_other_levels_write_the_mark_at_most(
    tmp_path: Path, image_format: ImageFormat, level: str, mark: str | None
) -> None:
    path = saved(tmp_path, image_format, metadata=level, prompt="secret")
    assert read_metadata(path) == ImageTexts(mark=mark)
    assert b"secret" not in path.read_bytes().replace(b"\0", b"")


@settings(deadline=None)
@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t<>&\"'"), max_size=200
    )
)
def test_any_text_survives_in_xmp_that_every_parser_reads(text: str) -> None:
    document = json.dumps({"prompt": text}, ensure_ascii=False)
    packet = metadata.xmp(document)
    root = ElementTree.fromstring(packet.decode().partition("?>")[2].rpartition("<?")[0])
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    own = description.attrib["{urn:kirazuri:recipe#}recipe"]
    assert json.loads(own) == {"prompt": text}
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "WEBP", xmp=packet)
    with Image.open(buffer) as image:
        found = metadata.read_image_texts(image).document
    assert found is not None
    assert json.loads(found) == {"prompt": text}


def test_a_program_may_rewrite_the_attribute_as_an_element(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    inside = b"{&quot;schema&quot;: 1, &quot;request&quot;: {}}"
    packet = b"<x><kirazuri:recipe>" + inside + b"</kirazuri:recipe></x>"
    Image.fromarray(PIXELS).save(path, xmp=packet)
    assert read_metadata(path).document == '{"schema": 1, "request": {}}'


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_mark_is_where_the_standard_has_it(tmp_path: Path, image_format: ImageFormat) -> None:
    with Image.open(saved(tmp_path, image_format)) as image:
        packet = image.info["xmp"]
    text = packet.decode() if isinstance(packet, bytes) else packet
    root = ElementTree.fromstring(text.partition("?>")[2].rpartition("<?")[0])
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    space = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
    assert description.attrib[f"{space}DigitalSourceType"] == metadata.TRAINED


@pytest.mark.parametrize(
    "written",
    [
        '<a:DigitalSourceType rdf:resource="m&amp;k"/>',
        "<a:DigitalSourceType>m&amp;k</a:DigitalSourceType>",
        "<b a:DigitalSourceType = 'm&amp;k'/>",
    ],
)
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_marks_of_other_programs_are_read(tmp_path: Path, written: str, ending: str) -> None:
    path, info = tmp_path / f"a.{ending}", PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f"<x>{written}</x>")
    options = {"pnginfo": info} if ending == "png" else {"xmp": f"<x>{written}</x>".encode()}
    Image.fromarray(PIXELS).save(path, **options)
    assert read_metadata(path).mark == "m&k"


def test_a_jpeg_keeps_what_fits_into_its_segments(tmp_path: Path) -> None:
    fits = read_metadata(saved(tmp_path, "jpeg", prompt="青" * 9_000))
    assert fits.document is not None
    assert fits.infotext is not None
    cut = read_metadata(
        saved(tmp_path, "jpeg", prompt="😀" * 10_000, negative_prompt="😀" * 10_000)
    )
    assert cut == ImageTexts(mark=metadata.TRAINED)
    whole = read_metadata(
        saved(tmp_path, "webp", prompt="😀" * 10_000, negative_prompt="😀" * 10_000)
    )
    assert whole.document is not None


@pytest.mark.parametrize("suffix", [".webp", ".jpg", ".avif"])
@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        (b"UNICODE\0" + "青, x".encode("utf-16-be"), "青, x"),
        (b"UNICODE\0" + "1girl, x".encode("utf-16-le"), "1girl, x"),
        (b"ASCII\0\0\0" + b"1girl", "1girl"),
        (b"1girl, x", "1girl, x"),
    ],
)
def test_comments_of_other_programs(
    tmp_path: Path, suffix: str, comment: bytes, expected: str
) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PIXELS).save(path, exif=exif.tobytes())
    assert read_metadata(path) == ImageTexts(infotext=expected)


def test_graphs_of_comfyui(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("prompt", '{"1": {}}')
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
    assert read_metadata(tmp_path / "a.png") == ImageTexts(workflow='{"1": {}}')
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = 'prompt:{"1": {}}'
    exif[ExifTags.Base.Make] = "workflow:{}"
    Image.fromarray(PIXELS).save(tmp_path / "a.webp", exif=exif)
    assert read_metadata(tmp_path / "a.webp") == ImageTexts(workflow='{"1": {}}')


def test_chunks_after_the_pixels_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    data = path.read_bytes()
    info = PngInfo()
    info.add_text("parameters", "1girl")
    Image.fromarray(PIXELS).save(path, pnginfo=info)
    begin = path.read_bytes().index(b"tEXt") - 4
    chunk = path.read_bytes()[begin : begin + 12 + len("parameters\x001girl")]
    end = data.index(b"IEND") - 4
    path.write_bytes(data[:end] + chunk + data[end:])
    assert read_metadata(path).infotext == "1girl"


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_file_that_is_no_image_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=r"a\.png"):
        read_metadata(path)


def test_a_missing_or_truncated_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile):
        read_metadata(tmp_path / "missing.png")
    path = saved(tmp_path, "png")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UnreadableFile):
        read_metadata(path)


def test_a_compressed_text_bomb_is_refused(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a" * 20_000_000, zip=True)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(UnreadableFile):
        read_metadata(tmp_path / "a.png")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [":DigitalSourceType", "kirazuri:recipe"])
def test_a_repeated_name_is_parsed_only_a_few_times(tmp_path: Path, name: str) -> None:
    """Each occurrence costs a scan of the rest of the file: an hour for this one."""
    path = tmp_path / "a.webp"
    Image.fromarray(PIXELS).save(path, xmp=f"{name}>".encode() * 400_000)
    assert read_metadata(path) == ImageTexts()

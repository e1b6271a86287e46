"""Texts that an image file leaves unclear are read with a note."""

from pathlib import Path

from PIL import ExifTags, Image

from tests.support.foreign_images import (
    imported,
    jpeg_with_comment,
    png_with,
    png_with_bytes,
    with_tag,
    with_user_comment,
)

INFOTEXT = (
    "1girl, 初音ミク, café\nNegative prompt: lowres, 低画質\nSteps: 20, Sampler: Euler a, "
    "CFG scale: 4.5, Seed: 123, Size: 512x768"
)


def test_bytes_of_an_unknown_encoding_and_escapes_are_noted(tmp_path: Path) -> None:
    unclear = "the encoding of the text is not known: it is neither UTF-8 nor ASCII"
    texts = {"gb18030": "初音未来", "big5": "初音", "euc-kr": "미쿠", "cp1251": "девочка"}
    for encoding, word in texts.items():
        data = INFOTEXT.replace("初音ミク, café", word).replace("低画質", "x").encode(encoding)
        for path in (
            png_with_bytes(tmp_path, data),
            jpeg_with_comment(tmp_path, data),
            with_tag(tmp_path, ExifTags.Base.ImageDescription, data),
            *(with_user_comment(tmp_path, code + data) for code in (b"", b"UNICODE\0", b"\0" * 8)),
        ):
            assert unclear in imported(path).notes, (encoding, path)
    escaped = png_with(tmp_path, parameters=INFOTEXT.replace("1girl", "&lt;lora:x:0.7&gt;"))
    assert "prompt &lt;: an escape of HTML, read as it stands" in imported(escaped).notes


def test_differing_infotexts_in_exif_are_noted(tmp_path: Path) -> None:
    other = INFOTEXT.replace("Seed: 123", "Seed: 9").encode()
    for first in (INFOTEXT.encode(), other):
        exif = Image.Exif()
        exif[ExifTags.Base.UserComment] = b"UNICODE\0" + first.decode().encode("utf-16-le")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = INFOTEXT.encode()
        path = tmp_path / "image.jpg"
        Image.new("RGB", (16, 16)).save(path, exif=exif.tobytes(), comment=first)
        notes = "\n".join(imported(path).notes)
        assert ("EXIF and the comments have 2 different infotexts" in notes) == (first == other)

"""File names and formats of saved images: nothing is overwritten, and no half file is left."""

from io import BytesIO
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from cli.client.errors import ClientError, WrongUsage
from cli.client.images import Target, format_of, save_images
from tests.support.scripted_transport import ScriptedTransport
from worker.images.metadata import read_metadata


def _png(color: str = "red") -> bytes:
    data = BytesIO()
    Image.new("RGB", (32, 16), color).save(data, "png")
    return data.getvalue()


def _save(target: Target, *contents: bytes, seed: int = 7) -> list[Path]:
    images = [
        {"url": f"http://service/images/{k}.png", "seed": seed + k, "format": "png"}
        for k in range(len(contents))
    ]
    answers = [httpx2.Response(200, content=content) for content in contents]
    client = httpx2.Client(transport=ScriptedTransport(*answers))
    return [image.path for image in save_images(client, images, target)]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClientError, match="cannot write"):
        _save(Target(tmp_path / "file" / "a.png"), b"png")


def test_a_name_that_nobody_asked_for_overwrites_nothing(tmp_path: Path) -> None:
    target = Target(tmp_path, may_overwrite=False)
    assert _save(target, b"one") == [tmp_path / "kirazuri-7.png"]
    assert _save(target, b"two") == [tmp_path / "kirazuri-7-2.png"]
    assert _save(target, b"three") == [tmp_path / "kirazuri-7-3.png"]
    assert (tmp_path / "kirazuri-7.png").read_bytes() == b"one"


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = Target(tmp_path / "a.png", may_overwrite=False)
    target.require_free(1)
    (tmp_path / "a.png").write_bytes(b"precious")
    with pytest.raises(ClientError, match="exists; --force"):
        _save(target, b"new")
    assert (tmp_path / "a.png").read_bytes() == b"precious"
    _save(Target(tmp_path / "a.png"), b"new")
    assert (tmp_path / "a.png").read_bytes() == b"new"


@pytest.mark.parametrize("taken", ["a-0.png", "a-1.png", "all.png"])
def test_every_name_is_checked_before_anything_is_made(tmp_path: Path, taken: str) -> None:
    target = Target(tmp_path / "a.png", tmp_path / "all.png", may_overwrite=False)
    target.require_free(2)
    (tmp_path / taken).write_bytes(b"")
    with pytest.raises(WrongUsage, match=f"{taken} exists"):
        target.require_free(2)


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("file", "/file is not a folder"),
        ("file/new", "/file is not a folder"),
        ("file/new/a.png", "/file is not a folder"),
        ("a" * 300 + ".png", "File name too long"),
        ("a" * 300, "File name too long"),
        ("/proc/new/a.png", "the folder /proc cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, told: str
) -> None:
    # Root may write everywhere; so what the system says of folders is that of another user.
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith("/proc"))
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongUsage, match=told):
        Target(tmp_path / out).require_free(1)
    with pytest.raises(WrongUsage, match=told):
        Target(tmp_path, tmp_path / out / "all.png").require_free(1)
    Target(tmp_path / "new" / "folder", tmp_path / "b" / "all.png").require_free(1)


def test_stdout_is_no_file() -> None:
    with pytest.raises(WrongUsage, match="--out -: images do not go to stdout"):
        Target(Path("-")).require_free(1)


def test_a_number_of_images_that_nobody_makes_is_not_counted_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    exists = Path.exists

    def ask(path: Path) -> bool:
        asked.append(path)
        return exists(path)

    monkeypatch.setattr(Path, "exists", ask)
    Target(tmp_path / "a.png", may_overwrite=False).require_free(10**8)
    assert len(asked) < 2000


def test_an_interrupt_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(KeyboardInterrupt):
        _save(Target(tmp_path / "a.png"), b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".avif"])
def test_a_contact_sheet_has_all_images_and_the_mark(tmp_path: Path, suffix: str) -> None:
    sheet = tmp_path / f"all{suffix}"
    _save(Target(tmp_path, sheet), _png("red"), _png("lime"), _png("blue"))
    with Image.open(sheet) as image:
        assert image.size == (2 * 32 + 3 * 8, 2 * 16 + 3 * 8)
        pixels = image.convert("RGB")
        colours = [pixels.getpixel(place) for place in ((24, 16), (64, 16), (24, 40), (64, 40))]
    assert read_metadata(sheet).mark
    for colour, wanted in zip(colours, ("red", "lime", "blue", "background"), strict=True):
        assert isinstance(colour, tuple)
        strongest = max(range(3), key=lambda k: colour[k])
        assert ("red", "lime", "blue")[strongest] == wanted or max(colour) < 60


@pytest.mark.parametrize(
    ("out", "expected"),
    [(None, None), ("a.PNG", "png"), ("a.jpg", "jpeg"), ("a.jpeg", "jpeg"), ("folder", None)],
)
def test_the_file_name_chooses_the_format(out: str | None, expected: str | None) -> None:
    assert format_of(Path(out) if out else None) == expected


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(WrongUsage, match=r"\.gif.*\.avif"):
        format_of(Path("a.gif"))

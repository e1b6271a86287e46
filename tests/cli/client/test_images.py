"""File names and formats of saved images."""

from pathlib import Path

import httpx2
import pytest

from cli.client.errors import ClientError
from cli.client.images import format_of, save_images
from tests.support.scripted_transport import ScriptedTransport


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    image = {"url": "http://service/images/a.png", "seed": 1, "format": "png"}
    with pytest.raises(ClientError, match="cannot write"):
        save_images(
            httpx2.Client(transport=ScriptedTransport(httpx2.Response(200, content=b"png"))),
            [image],
            tmp_path / "file" / "a.png",
        )


@pytest.mark.parametrize(
    ("out", "expected"),
    [(None, None), ("a.PNG", "png"), ("a.jpg", "jpeg"), ("a.jpeg", "jpeg"), ("folder", None)],
)
def test_the_file_name_chooses_the_format(out: str | None, expected: str | None) -> None:
    assert format_of(Path(out) if out else None) == expected


def test_an_unknown_ending_is_refused() -> None:
    with pytest.raises(ClientError, match=r"\.gif.*\.avif"):
        format_of(Path("a.gif"))

"""Small files that need much memory: each is refused or opened within a bound."""

import io
import struct
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

from api.submit.images.decoding import MAX_SCANS, has_too_many_scans
from tests.support.api_calls import PROMPT, read_problem

MEGABYTE = 2**20
MOST_MEMORY = 450 * MEGABYTE
"""Peak of a process that opens them: an image of MAX_PIXELS twice, and all imports."""


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *middle: bytes, pixels: bytes = b"", interlaced: int = 0) -> bytes:
    """A PNG with these chunks; without `pixels` it has too few."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    body = zlib.compress(pixels or bytes(1000), 1)
    chunks = (chunk(b"IHDR", head), *middle, chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def small(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, kind, **options)
    return buffer.getvalue()


def text_bomb(name: bytes) -> bytes:
    """A text chunk of some kilobytes that unpacks to a thousand times its size."""
    zeros = zlib.compress(bytes(40 * MEGABYTE), 1)
    return chunk(name, b"parameters\0" + (b"\0" if name == b"zTXt" else b"\1\0\0\0") + zeros)


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG that declares this size."""
    data = bytearray(small("JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_canvas() -> bytes:
    """A WebP with the largest canvas."""
    flags = struct.pack("<I", 0x02) + b"\xff\xff\xff" * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + flags
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def avif_of(width: int, height: int) -> bytes:
    """An AVIF that declares this size."""
    data = bytearray(small("AVIF"))
    place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", width, height)
    return bytes(data)


def exif_of(entries: int) -> bytes:
    """EXIF with this many tags that each declare four gigabytes."""
    tags = b"".join(struct.pack("<HHII", 0x9000 + n % 999, 7, 2**32 - 1, 8) for n in range(entries))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, entries) + tags + bytes(4)


def exif_loop() -> bytes:
    """EXIF with a directory that links to itself."""
    tag = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + tag + struct.pack("<I", 8)


BOMBS: dict[str, Callable[[], bytes]] = {
    "64 gigapixels": lambda: png(2**18, 2**18),
    "a side of 2^31": lambda: png(2**31 - 1, 2**31 - 1),
    "no width": lambda: png(0, 64),
    "zeros for a whole picture": lambda: png(4096, 4096, pixels=bytes(4096 * (4096 * 3 + 1))),
    "interlaced": lambda: png(4096, 4096, pixels=bytes(60 * MEGABYTE), interlaced=1),
    "pixels without an end": lambda: png(64, 64, pixels=bytes(90 * MEGABYTE)),
    "a compressed text": lambda: png(64, 64, text_bomb(b"zTXt")),
    "an international text": lambda: png(64, 64, text_bomb(b"iTXt")),
    "a hundred texts": lambda: png(
        64, 64, *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MEGABYTE), 1))] * 100
    ),
    "a hundred thousand texts": lambda: png(64, 64, *[chunk(b"tEXt", b"k\0v")] * 100_000),
    "a colour profile": lambda: png(
        64, 64, chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(40 * MEGABYTE), 1))
    ),
    "a chunk longer than the file": lambda: (
        png(64, 64)[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt"
    ),
    "a chunk of negative length": lambda: png(64, 64)[:33] + b"\xff\xff\xff\xfftEXtabc",
    "a million frames": lambda: png(64, 64, chunk(b"acTL", struct.pack(">II", 10**6, 0))),
    "a JPEG of 65500 a side": lambda: jpeg_of(65_500, 65_500),
    "a JPEG that ends at once": lambda: small("JPEG")[:400],
    "a progressive JPEG of 4096": lambda: jpeg_of(4096, 4096),
    "a JPEG of comments": lambda: (
        b"\xff\xd8" + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 150 + small("JPEG")[2:]
    ),
    "a WebP canvas": webp_canvas,
    "an AVIF of 30000 a side": lambda: avif_of(30_000, 30_000),
    "EXIF of 5000 tags": lambda: small("JPEG", exif=exif_of(5000)),
    "EXIF in a circle": lambda: small("PNG", exif=exif_loop()),
    "a GIF of many frames": lambda: small("GIF") + b"\x2c" * 100_000,
    "a TIFF": lambda: small("TIFF"),
    "an EPS, which would run a program": lambda: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    ),
}


@cache
def bomb(name: str) -> bytes:
    """The file, cached."""
    return BOMBS[name]()


_OPEN = """
import sys
from pathlib import Path
from api.http.errors import UnreadableImage
from api.routes.images.evidence import Evidence
from api.submit.images.decoding import InputImageRefused, decode_image
from worker.images.c2pa_manifest import C2paReader
from worker.settings import Settings
from PIL import Image

reader = C2paReader(Settings(_env_file=None))
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    for read in (decode_image, lambda data: Evidence(data, reader)):
        try:
            read(data)
        except (InputImageRefused, UnreadableImage):
            pass
    # getrusage() would count the parent process too.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    print(path.name, int(status["VmHWM"].split()[0]) * 1024, flush=True)
"""


def test_no_small_file_takes_much_memory(tmp_path: Path) -> None:
    for number, name in enumerate(BOMBS):
        data = bomb(name)
        assert len(data) < 12_000_000, "it has to fit into a body"
        (tmp_path / f"{number:02}").write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _OPEN, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    names = list(BOMBS)
    for line in run.stdout.splitlines():
        number, peak = map(int, line.split())
        assert peak < MOST_MEMORY, (names[number], peak // MEGABYTE)
    assert len(run.stdout.splitlines()) == len(BOMBS)


def test_the_api_accepts_or_refuses_each(client: httpx2.Client) -> None:
    for name in BOMBS:
        body = {"prompt": PROMPT, "init_image": b64encode(bomb(name)).decode()}
        answer = client.post("/generate?dry_run=true", json=body, timeout=60)
        assert answer.status_code in (200, 422), (name, answer.text)
        if answer.status_code == 422:
            (error,) = read_problem(answer)["errors"]
            assert error["pointer"] == "/init_image"


def test_the_scans_of_a_jpeg_are_counted_up_to_the_limit() -> None:
    looked_for = []

    class File(bytes):
        def find(self, *given: Any) -> int:
            looked_for.append(given)
            return super().find(*given)

    for count, is_too_many in (
        (0, False),
        (MAX_SCANS, False),
        (MAX_SCANS + 1, True),
        (9_999, True),
    ):
        looked_for.clear()
        assert has_too_many_scans(File(b"\xff\xda" * count)) is is_too_many
        assert 1 <= len(looked_for) <= MAX_SCANS + 1

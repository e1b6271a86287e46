"""What hostile clients send: bodies that are cheap to send and dear to read."""

import io
import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image

_LONG_SIDE = 16_777_216
_FORM = "multipart/form-data; boundary=x"

JSON = "application/json"


@dataclass(frozen=True)
class Sent:
    """One kind of request: where it goes, and what it carries."""

    path: str
    media_type: str
    make: Callable[[], bytes]

    def __str__(self) -> str:
        return f"{self.path} {self.media_type.partition(';')[0]}"


def _json(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _many_keys(number: int) -> dict[str, int]:
    return {f"k{place}": 0 for place in range(number)}


def keys(number: int = 100_000) -> Mapping[str, Callable[[], bytes]]:
    """JSON with many keys or brackets, at the top and deeper."""
    fields = {"prompt": "1girl"}
    return {
        "unknown keys": lambda: _json(fields | _many_keys(number)),
        "keys of a field": lambda: _json(fields | {"hires": _many_keys(number)}),
        "keys of a free map": lambda: _json(fields | {"sampler_options": _many_keys(number)}),
        "keys of a map of A1111": lambda: _json(fields | {"override_settings": _many_keys(number)}),
        "keys under tags": lambda: _json(fields | {"tags": _many_keys(number)}),
        "brackets": lambda: b'{"prompt": "1girl", "loras": ' + b"[" * number + b"]" * number + b"}",
        "many small lists": lambda: _json(fields | {"x": [[] for _ in range(number)]}),
    }


def stalling(number: int = 100_000) -> Mapping[str, Callable[[], bytes]]:
    """Other JSON whose validation could take long."""
    fields = {"prompt": "1girl"}
    return {
        "empty objects": lambda: _json(fields | {"loras": [{} for _ in range(number)]}),
        "a prompt that is a list": lambda: _json({"prompt": ["1girl"] * number}),
        "blanks as base64": lambda: _json(fields | {"init_image": " " * (20 * number)}),
        "scripts": lambda: _json(fields | {"alwayson_scripts": {"a": {"args": [0] * number}}}),
        "a long prompt": lambda: _json({"prompt": "(" * number}),
        "images": lambda: _json(fields | {"init_images": ["A"] * number, "images": [{}] * number}),
        "messages": lambda: _json({"model": "x", "messages": [{}] * number}),
    }


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


@cache
def thin_picture(width: int = _LONG_SIDE, height: int = 1) -> bytes:
    """A valid PNG of one channel."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (width + 1)) for _ in range(min(height, 1)))
    if height > 1:
        rows = packer.compress(b"\0" * (width + 1) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (_chunk(b"IHDR", head), _chunk(b"IDAT", rows + packer.flush()), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@cache
def bracket_picture(brackets: int = 190_000) -> bytes:
    """A PNG whose texts are nothing but brackets."""
    output = io.BytesIO()
    Image.new("RGB", (64, 64)).save(output, "PNG")
    plain = output.getvalue()
    text = b"(" * brackets
    texts = b"".join(
        _chunk(b"tEXt", name + b"\0" + text) for name in (b"parameters", b"prompt", b"Comment")
    )
    return plain[:33] + texts + plain[33:]


def _text(image: bytes) -> str:
    return b64encode(image).decode()


def form_of(image: bytes) -> bytes:
    """A form with an image and a prompt."""
    return (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n1girl\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + image + b"\r\n--x--\r\n"
    )


def _fields(**fields: Any) -> Callable[[], bytes]:
    return lambda: _json({"prompt": "1girl", **fields})


def key_attacks() -> list[Sent]:
    """Many keys, at every endpoint with a JSON body."""
    paths = (
        "/generate",
        "/generate?dry_run=true",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/chat/completions",
        "/sdapi/v1/txt2img",
        "/sdapi/v1/img2img",
        "/sdapi/v1/options",
        "/sdapi/v1/png-info",
    )
    made = list(keys().values())
    return [Sent(path, JSON, make) for path in paths for make in made]


def stalling_attacks() -> list[Sent]:
    """Other bodies that could hold up the event loop."""
    paths = ("/generate?dry_run=true", "/v1/images/generations", "/v1/chat/completions")
    a1111 = ("/sdapi/v1/txt2img", "/sdapi/v1/img2img")
    made = [Sent(path, JSON, make) for path in (*paths, *a1111) for make in stalling().values()]
    image = bracket_picture()
    return [
        *made,
        Sent("/sdapi/v1/png-info", JSON, lambda: _json({"image": _text(image)})),
        Sent("/verify", "image/png", lambda: image),
        Sent("/verify", _FORM, lambda: form_of(image)),
        Sent("/sdapi/v1/png-info", JSON, lambda: _json({"image": " " * 2_000_000})),
    ]


def picture_attacks() -> list[Sent]:
    """Pictures with few bytes and many pixels, wherever a picture is accepted."""
    wide, tall = thin_picture(), thin_picture(1, 65_000)
    both = {"init_image": _text(wide), "mask": _text(tall)}
    a1111 = {"init_images": [_text(wide)], "mask": _text(tall)}
    url = f"data:image/png;base64,{_text(wide)}"
    return [
        Sent("/generate?dry_run=true", JSON, _fields(**both)),
        Sent("/generate", JSON, _fields(**both)),
        Sent("/verify", "image/png", lambda: wide),
        Sent("/verify", _FORM, lambda: form_of(wide)),
        Sent("/v1/images/edits", _FORM, lambda: form_of(wide)),
        Sent("/v1/images/edits", JSON, _fields(images=[{"image_url": url}])),
        Sent("/sdapi/v1/img2img", JSON, _fields(**a1111)),
        Sent("/sdapi/v1/png-info", JSON, lambda: _json({"image": _text(wide)})),
        Sent("/sdapi/v1/extra-single-image", JSON, lambda: _json({"image": _text(wide)})),
    ]


BODY_READERS = (
    ("/generate", JSON),
    ("/verify", "image/png"),
    ("/verify", _FORM),
    ("/v1/images/generations", JSON),
    ("/v1/images/edits", _FORM),
    ("/v1/chat/completions", JSON),
    ("/sdapi/v1/img2img", JSON),
    ("/sdapi/v1/png-info", JSON),
)
"""Endpoints that read a body, for bodies that are held or never end."""

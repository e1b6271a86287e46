"""Base64 and data URLs as clients write them."""

import tracemalloc
from base64 import b64encode
from contextlib import suppress
from urllib.parse import quote

import httpx2
import pytest

from api.submit.images import base64_text
from tests.support.api_calls import PROMPT, read_problem
from tests.support.images import draw_image, encode_file, to_base64


def stored_name(client: httpx2.Client, text: str) -> str:
    """The name under which the service stores an initial image."""
    job = client.post("/generate", json={"prompt": PROMPT, "init_image": text}).json()
    client.delete(f"/jobs/{job['id']}")  # the queue holds few
    return str(job["request"]["init_image"])


def test_base64_as_clients_write_it(client: httpx2.Client) -> None:
    file = next(
        data
        for width in range(96, 400, 16)
        for data in [encode_file(draw_image((width, 112)))]
        if len(data) % 3 and {"+", "/", "="} <= set(to_base64(data))
    )
    name = stored_name(client, to_base64(file))
    code = to_base64(file)
    url_safe = code.replace("+", "-").replace("/", "_")
    for form in (
        code.rstrip("="),
        code.rstrip("=") + "====",
        url_safe,
        url_safe.rstrip("="),
        "\r\n".join(code[i : i + 64] for i in range(0, len(code), 64)),
        "\\n".join(code[i : i + 64] for i in range(0, len(code), 64)),
        f"DATA:IMAGE/PNG;BASE64,{code}",
        f"data:image/png; charset=utf-8; base64, {code}",
        f'data:application/octet-stream;name="a b.png";base64,{url_safe.rstrip("=")}',
        f"data:image/svg+xml;base64,{code}",
        f"data:;base64,{code}",
        f"data:base64,{code}",
        f"data:image/png;base64,{quote(code, safe='')}",
    ):
        assert stored_name(client, form) == name, form[:60]


def test_errors_say_what_is_wrong_with_base64(client: httpx2.Client) -> None:
    code = to_base64(draw_image())
    wrong = {
        code.rstrip("=") + "a" * (5 - len(code.rstrip("=")) % 4): "cut off",
        f"{code[:40]}*{code[40:]}": "base64 has no '*', which is at character 40",
        f"{code[:41]}={code[41:]}": "base64 has no '=', which is at character 41",
        "data:image/png;base64": "needs a comma",
        "data:image/png;base64,": "only 0 bytes",
        "girl": "only 3 bytes; send the image in base64, or the name of an image",
        "girl.png": "base64 has no '.', which is at character 4; send the image in base64, or the",
    }
    for text, reason in wrong.items():
        answer = client.post("/generate", json={"prompt": PROMPT, "init_image": text})
        (error,) = read_problem(answer)["errors"]
        assert reason in error["detail"], text[:60]


def test_escapes_are_found_wherever_the_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 4
    code = b64encode(data).decode()
    lines = [code[start : start + 19] for start in range(0, len(code), 19)]
    for size in range(4, 40, 4):
        monkeypatch.setattr(base64_text, "_PIECE_CHARS", size)
        assert base64_text.decode_base64("\\r\\n".join(lines)) == data
        assert base64_text.decode_base64(f"data:,{quote(chr(10).join(lines), safe='')}") == data


@pytest.mark.parametrize("text", [" a" * 1_000_000, "data:," + "%0A" * 700_000, "a" * 2_000_000])
def test_a_text_needs_a_few_times_its_own_memory(text: str) -> None:
    """A list of its words or escapes would be many times as large as the text."""
    tracemalloc.start()
    try:
        with suppress(ValueError):
            base64_text.decode_base64(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(text)

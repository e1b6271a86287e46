"""Decodes base64 as clients write it: in either alphabet, wrapped, unpadded, as a data URL."""

import re
from base64 import b64decode
from typing import Final
from urllib.parse import unquote

_URL_SAFE: Final = str.maketrans("-_", "+/")
_FOREIGN = re.compile(r"[^A-Za-z0-9+/]")


def decode_base64(text: str) -> bytes:
    r"""The bytes that base64 or a data URL stands for; the type in a data URL does not matter.

    Line breaks count as blanks, also those that were escaped twice and arrive as `\n`.

    Raises:
        ValueError: it is neither; says what is wrong with it.
    """
    code = text
    if text[:5].lower() == "data:":
        _, comma, code = text.partition(",")
        if not comma:
            raise ValueError("a data URL needs a comma before its base64")
        code = unquote(code) if "%" in code else code
    code = code.replace("\\n", "").replace("\\r", "")
    code = "".join(code.split()).translate(_URL_SAFE).rstrip("=")
    if foreign := _FOREIGN.search(code):
        raise ValueError(f"base64 has no {foreign[0]!r}, which is at character {foreign.start()}")
    if len(code) % 4 == 1:
        raise ValueError(f"the base64 is cut off: {len(code)} characters are no whole bytes")
    return b64decode(code + "=" * (-len(code) % 4), validate=True)

"""Texts that try to forge log lines or to control a terminal."""

HOSTILE_TEXTS = {
    "a second line": "a\r\n2026-01-01 INFO api event=accepted",
    "a bare carriage return": "a\rb",
    "colours": "\x1b[31mred\x1b[0m",
    "a terminal title": "\x1b]0;owned\x07",
    "C1 control sequence": "\x9b2J",
    "backspaces": "harmless\x08\x08\x08",
    "right-to-left override": "abc\u202efdp.exe",
    "isolates": "\u2066a\u2069",
    "Unicode line separators": "a\u2028b\u2029c\x85d",
    "zero-width characters": "a\u200bb\ufeffc",
    "a null": "a\x00b",
    "a lone surrogate": "a\ud800b",
}

"""Texts that try to forge log lines or move a terminal's cursor."""

NASTY = {
    "a second line": "a\r\n2026-01-01 INFO api event=accepted",
    "a bare carriage return": "a\rb",
    "colours": "\x1b[31mred\x1b[0m",
    "a title for the terminal": "\x1b]0;owned\x07",
    "C1's introducer": "\x9b2J",
    "backspaces": "harmless\x08\x08\x08",
    "right to left": "abc\u202efdp.exe",
    "isolates": "\u2066a\u2069",
    "a line of Unicode": "a\u2028b\u2029c\x85d",
    "nothing to see": "a\u200bb\ufeffc",
    "a null": "a\x00b",
    "half a pair": "a\ud800b",
}

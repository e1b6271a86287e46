"""Checks that the notes on a recipe can be printed."""

from typing import Any

from model.recipes.imported import ImportedRequest

CAPABILITIES: dict[str, Any] = {
    "name": "kirazuri-tiny",
    "samplers": [{"name": "er_sde"}],
    "schedulers": [{"name": "simple"}],
    "loras": [{"name": "styles/hat", "sha256": None}],
    "workers": [],
}


def assert_shown_well(reading: ImportedRequest) -> None:
    """Notes are printed on a terminal: one line each, no control characters, encodable."""
    for note in reading.notes:
        assert note.isprintable(), repr(note)
        note.encode()

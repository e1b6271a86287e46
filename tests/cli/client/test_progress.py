"""What a terminal, a simple terminal and a pipe see of a job."""

import io
from typing import Any

import pytest
from rich.console import Console

from cli.client.progress import duration, job_progress

EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("queued", {}),
    ("started", {}),
    ("progress", {"step": 3, "steps": 20, "eta_seconds": 7.2}),
    ("image", {"seed": 1}),
    ("progress", {"step": 4, "steps": 20, "eta_seconds": 6}),
    ("succeeded", {}),
]


def _shown(*, terminal: str | None) -> str:
    written = io.StringIO()
    environment = {"TERM": terminal or "xterm", "COLUMNS": "100"}
    console = Console(
        file=written, force_terminal=terminal is not None, _environ=environment, width=100
    )
    with job_progress(console, 2) as show:
        for event, data in EVENTS:
            show(event, data)
            if terminal == "xterm":
                console.file.flush()
    return written.getvalue()


def test_a_pipe_gets_nothing() -> None:
    assert _shown(terminal=None) == ""


def test_a_simple_terminal_gets_a_line_for_each_state() -> None:
    assert _shown(terminal="dumb") == "queued\nstarted\n"


def test_a_terminal_gets_steps_images_and_the_time_left() -> None:
    shown = _shown(terminal="xterm")
    assert "4/20, 1 of 2 images" in shown
    assert "6 s left" in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (6000, "2 h"), (200_000, "2 d")],
)
def test_time_spans(seconds: float, text: str) -> None:
    assert duration(seconds) == text

"""Shows the progress of jobs on stderr: a line that changes, or lines on a simple terminal."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

ShowEvent = Callable[[str, Mapping[str, Any]], None]
"""Gets the name and the data of every event."""

_STATES = ("queued", "started", "retrying")


@contextmanager
def job_progress(console: Console, images: int) -> Iterator[ShowEvent]:
    """Show a job of so many images, by its events; nothing if stderr is no terminal."""
    if console.is_dumb_terminal:
        yield lambda event, data: console.print(event) if event in _STATES else None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}{task.fields[images]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        finished = 0
        task = bar.add_task("queued", total=1, images="", left="")

        def show(event: str, data: Mapping[str, Any]) -> None:
            nonlocal finished
            if event == "image":
                finished += 1
                bar.update(task, images=f", {finished} of {images} images" if images > 1 else "")
            elif event == "progress":
                left = data.get("eta_seconds")
                bar.update(
                    task,
                    description="sampling",
                    completed=data["step"],
                    total=data["steps"],
                    left=f"{duration(left)} left" if left is not None else "",
                )
            elif event in _STATES:
                bar.update(task, description=event)

        yield show


@contextmanager
def count_progress(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` are done; yields a function that adds to them."""
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    is_hidden = not console.is_terminal or console.is_dumb_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=is_hidden
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.update(task, advance=count)


def duration(seconds: float) -> str:
    """A time span as people read it: 7 s, 3 min, 2 h, 5 d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"

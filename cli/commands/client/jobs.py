"""`kirazuri jobs`, `show`, `cancel` and `links`: what becomes of requests."""

import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.client import api
from cli.client.descriptions import JOB_HEADS, describe_job, job_row
from cli.client.errors import ClientError, exit_on_error
from cli.commands.client.service_option import FROM_SETTINGS, Url
from cli.options import AsJson, JobId
from cli.output import (
    NOT_FOUND,
    REFUSED,
    examples,
    note,
    print_error,
    print_fields,
    print_json,
    print_table,
    table_lines,
    terminal_width,
)
from worker.job import Status

app = typer.Typer(add_completion=False)

_WATCH_SECONDS = 1.0


@app.command(
    epilog=examples(
        "kirazuri jobs",
        "kirazuri jobs --status failed --limit 100",
        "kirazuri jobs --containing 'blue hair' --json",
        "kirazuri jobs --watch",
    )
)
def jobs(
    status: Annotated[Status | None, typer.Option(help="Only those with this status.")] = None,
    containing: Annotated[
        str | None, typer.Option(help="Only those with this text in the prompt.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    is_watching: Annotated[
        bool, typer.Option("--watch", help="Keep the list up to date until Ctrl-C.")
    ] = False,
    url: Url = FROM_SETTINGS,
    is_json: AsJson = False,
) -> None:
    """List your jobs, newest first.

    With --watch, a pipe or a simple terminal gets a line whenever a job changes; with --json as
    well, that line is the job.
    """

    def read() -> list[Any]:
        found = api.jobs(url, status=status)
        wanted = (job for job in found if containing is None or _has(job, containing))
        return list(islice(wanted, min(limit, sys.maxsize)))

    with exit_on_error():
        if is_watching:
            _watch(read, is_json=is_json)
        found = read()
    if is_json:
        print_json(found)
        return
    print_table(JOB_HEADS, [job_row(job) for job in found])
    if not found:
        note("there are no such jobs")


def _has(job: Any, text: str) -> bool:
    return text.casefold() in job["request"]["prompt"].casefold()


def _watch(read: Callable[[], list[Any]], *, is_json: bool) -> None:
    """Show the jobs as they change, until interrupted."""
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal and not is_json:
        _redraw(read, console)
    seen: dict[str, Any] = {}
    while True:
        for job in reversed(read()):
            state = (job["status"], job["attempts"])
            if seen.get(job["id"]) != state:
                seen[job["id"]] = state
                if is_json:
                    print_json(job, is_line=True)
                else:
                    print_table(*_without_heads(job_row(job)))
        time.sleep(_WATCH_SECONDS)


def _without_heads(row: list[object]) -> tuple[list[str], list[list[object]]]:
    return [str(value) for value in row], []


def _redraw(read: Callable[[], list[Any]], console: Console) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            rows = [job_row(job) for job in read()]
            lines = table_lines(JOB_HEADS, rows, width=terminal_width())
            shown = lines[: console.height - 1]
            live.update(Text("\n".join(shown), no_wrap=True), refresh=True)
            time.sleep(_WATCH_SECONDS)


@app.command(
    epilog=examples(
        "kirazuri show 01JD6Z1Q8M4T0V7C2N5K9R3XWB",
        "kirazuri show 01JD6Z1Q8M4T0V7C2N5K9R3XWB --watch",
    )
)
def show(
    job_id: JobId,
    is_watching: Annotated[
        bool, typer.Option("--watch", help="Wait for its end, with a progress line.")
    ] = False,
    url: Url = FROM_SETTINGS,
    is_json: AsJson = False,
) -> None:
    """Show a job. With --watch, the exit code is 1 if it does not succeed."""
    with exit_on_error("interrupted; the job goes on"):
        if is_watching:
            job = api.watch(job_id, url=url, console=Console(stderr=True))
        else:
            job = api.job(job_id, url=url)
    if is_json:
        print_json(job)
    else:
        print_fields(describe_job(job))
    if is_watching and job["status"] != "succeeded":
        raise typer.Exit(1)


@app.command(epilog=examples("kirazuri cancel 01JD6Z1Q8M4T0V7C2N5K9R3XWB"))
def cancel(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")],
    url: Url = FROM_SETTINGS,
    is_json: AsJson = False,
) -> None:
    """Cancel jobs, queued or running. A running job stops within one step.

    The exit code is 0 if all were cancelled. With --json, every cancelled job is a line.
    """
    code = 0
    with exit_on_error():
        for job_id in job_ids:
            try:
                job = api.cancel(job_id, url=url)
            except ClientError as exc:
                if exc.exit_code not in (REFUSED, NOT_FOUND):
                    raise
                print_error(f"{job_id}: {exc}" if job_id else str(exc))
                code = code or exc.exit_code
            else:
                if is_json:
                    print_json(job, is_line=True)
                else:
                    typer.echo(f"{job['id']}  is being cancelled")
    raise typer.Exit(code)


@app.command(epilog=examples("kirazuri links 01JD6Z1Q8M4T0V7C2N5K9R3XWB"))
def links(job_id: JobId, url: Url = FROM_SETTINGS, is_json: AsJson = False) -> None:
    """Sign URLs of a job that a browser can read without a key: its events and images.

    Anybody who sees such a URL can use it until it expires.
    """
    with exit_on_error():
        found = api.links(job_id, url=url)
    if is_json:
        print_json(found)
        return
    print_fields(
        [
            ("events", found["events"]),
            *(("image", image) for image in found["images"]),
            ("until", found["expires_at"]),
        ]
    )

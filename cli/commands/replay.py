"""`kirazuri replay`: runs a job again and compares the images."""

from typing import Annotated

import typer
from rich.console import Console

from cli.client import api
from cli.client.errors import exit_on_error
from cli.commands.service_option import FROM_SETTINGS, Url
from cli.options import DEFAULT_TIMEOUT, Timeout
from cli.output import examples

app = typer.Typer()


@app.command(epilog=examples("kirazuri replay 01JD6Z1Q8M4T0V7C2N5K9R3XWB"))
def replay(
    job_id: Annotated[str, typer.Argument(help="A job that succeeded and has not expired.")],
    url: Url = FROM_SETTINGS,
    timeout: Timeout = DEFAULT_TIMEOUT,
) -> None:
    """Run a job again and compare. Exit code 0 if all images have the same bytes, otherwise 1."""
    with exit_on_error():
        job = api.replay(job_id, url=url, timeout=timeout, console=Console(stderr=True))
    for warning in job["warnings"]:
        typer.echo(f"warning: {warning['detail']}", err=True)
    typer.echo(f"{job['id']}  {'matches' if job['matches'] else 'differs from'} {job_id}")
    if not job["matches"]:
        raise typer.Exit(1)

"""`kirazuri download`, `replay` and `verify`: images that exist already."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.client import api
from cli.client.errors import WrongUsage, exit_on_error
from cli.client.images import Target
from cli.commands.client.service_option import FROM_SETTINGS, Url
from cli.options import DEFAULT_TIMEOUT, AsJson, Force, JobId, Out, Sheet, Timeout
from cli.output import FAILED, examples, print_json, warn

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "kirazuri download 01JD6Z1Q8M4T0V7C2N5K9R3XWB",
        "kirazuri download 01JD6Z1Q8M4T0V7C2N5K9R3XWB --out pictures/ --sheet all.png",
    )
)
def download(
    job_id: JobId,
    out: Out = None,
    sheet: Sheet = None,
    force: Force = False,
    url: Url = FROM_SETTINGS,
    is_json: AsJson = False,
) -> None:
    """Save the images of a job that succeeded."""
    with exit_on_error():
        saved = api.download(job_id, Target(out, sheet, may_overwrite=force), url=url)
    if is_json:
        print_json([image.as_json() for image in saved])
        return
    for image in saved:
        typer.echo(image)


@app.command(epilog=examples("kirazuri replay 01JD6Z1Q8M4T0V7C2N5K9R3XWB"))
def replay(
    job_id: Annotated[
        str, typer.Argument(metavar="JOB", help="A job that succeeded and has not expired.")
    ],
    url: Url = FROM_SETTINGS,
    timeout: Timeout = DEFAULT_TIMEOUT,
    is_json: AsJson = False,
) -> None:
    """Run a job again and compare. Exit code 0 if all images have the same bytes, otherwise 1."""
    with exit_on_error("interrupted; the job is cancelled"):
        job = api.replay(job_id, url=url, timeout=timeout, console=Console(stderr=True))
    for warning in job["warnings"]:
        warn(warning["detail"])
    if is_json:
        print_json(job)
    else:
        typer.echo(f"{job['id']}  {'matches' if job['matches'] else 'differs from'} {job_id}")
    if not job["matches"]:
        raise typer.Exit(FAILED)


@app.command(epilog=examples("kirazuri verify girl.png", "curl -s URL | kirazuri verify -"))
def verify(
    image: Annotated[Path, typer.Argument(help="A PNG, WebP, JPEG or AVIF file; - is stdin.")],
    url: Url = FROM_SETTINGS,
    is_json: AsJson = False,
) -> None:
    """Report whether an image was generated, as far as a service can know."""
    with exit_on_error():
        try:
            data = sys.stdin.buffer.read() if str(image) == "-" else image.read_bytes()
        except OSError as exc:
            raise WrongUsage(f"cannot read {image}: {exc.strerror}") from exc
        found = api.verify(data, url=url)
    if is_json:
        print_json(found)
    else:
        typer.echo("\n".join([found["verdict"], *found["summary"]]))

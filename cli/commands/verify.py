"""`kirazuri verify`: asks a service whether an image was generated."""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import api
from cli.client.errors import exit_on_error
from cli.commands.service_option import FROM_SETTINGS, Url
from cli.output import examples

app = typer.Typer()


@app.command(epilog=examples("kirazuri verify girl.png"))
def verify(
    image: Annotated[Path, typer.Argument(help="A PNG, WebP, JPEG or AVIF file.")],
    url: Url = FROM_SETTINGS,
) -> None:
    """Report whether an image was generated, as far as a service can know."""
    with exit_on_error(interrupted="interrupted"):
        found = api.verify(image, url=url)
    typer.echo("\n".join([found["verdict"], *found["summary"]]))

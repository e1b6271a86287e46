"""The option that names the service which a client command calls."""

from typing import Annotated, Any

import typer

from cli.client.connection import service_url
from cli.client.errors import ClientError
from cli.output import fail, read_settings


def _read_url(context: typer.Context, given: str | None) -> str | None:
    if context.resilient_parsing:
        return given
    name, address = ("--url", given) if given is not None else ("KIRAZURI_URL", read_settings().url)
    try:
        return service_url(address)
    except ClientError as exc:
        fail(f"{name}: {exc}", exc.exit_code)


Url = Annotated[
    str,
    typer.Option(
        "--url",
        callback=_read_url,
        show_default=False,
        help="Address of the service; default: KIRAZURI_URL, else http://127.0.0.1:8000.",
    ),
]
FROM_SETTINGS: Any = None
"""Default of a `Url`, which is never None in a command."""

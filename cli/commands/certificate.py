"""`kirazuri certificate`: makes a certificate for C2PA signatures."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import examples, fail, note

app = typer.Typer(add_completion=False)


@app.command(epilog=examples('kirazuri certificate signing --organisation "Studio Kirazuri"'))
def certificate(
    folder: Annotated[Path, typer.Argument(help="Where to write; an existing ca.pem is reused.")],
    organisation: Annotated[
        str, typer.Option(help="Name of the signer; shown with every image.")
    ] = "Kirazuri Server",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Validity in days.")] = 365,
) -> None:
    """Make a certificate to sign images with (C2PA), issued by your own certificate authority."""
    # Imported here: it is slow, and no other command needs it.
    from cli.certificates import make_certificate

    try:
        make_certificate(folder, organisation=organisation, days=days)
    except (OSError, ValueError) as exc:
        fail(str(exc))
    typer.echo(f"KIRAZURI_C2PA_CERTIFICATE={folder / 'certificate.pem'}")
    typer.echo(f"KIRAZURI_C2PA_KEY={folder / 'key.pem'}")
    note(f"give {folder / 'ca.pem'} to those who check images; keep the keys")

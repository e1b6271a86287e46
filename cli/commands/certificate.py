"""`kirazuri certificate`: makes a certificate for C2PA signatures."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson
from cli.output import examples, fail, note, print_json

app = typer.Typer(add_completion=False)


@app.command(epilog=examples('kirazuri certificate signing --organisation "Studio Kirazuri"'))
def certificate(
    folder: Annotated[Path, typer.Argument(help="Where to write; an existing ca.pem is reused.")],
    organisation: Annotated[
        str, typer.Option(help="Name of the signer; shown with every image.")
    ] = "Kirazuri Server",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Validity in days.")] = 365,
    is_json: AsJson = False,
) -> None:
    """Make a certificate to sign images with (C2PA), issued by your own certificate authority."""
    # Imported here: it is slow, and no other command needs it.
    from cli.certificates import make_certificate

    try:
        make_certificate(folder, organisation=organisation, days=days)
    except OSError as exc:
        fail(f"{exc.filename or folder}: {exc.strerror or exc}")
    except ValueError as exc:
        fail(str(exc))
    settings = {
        "KIRAZURI_C2PA_CERTIFICATE": str(folder / "certificate.pem"),
        "KIRAZURI_C2PA_KEY": str(folder / "key.pem"),
    }
    if is_json:
        print_json(settings)
    else:
        typer.echo("\n".join(f"{name}={path}" for name, path in settings.items()))
    note(f"give {folder / 'ca.pem'} to those who check images; keep the keys")

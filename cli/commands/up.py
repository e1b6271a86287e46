"""`kirazuri up`: starts Redis, API and workers, and stops them on Ctrl-C."""

from pathlib import Path
from typing import Annotated

import typer

from cli.checks.start import require_start
from cli.options import CardName, CheckpointFolder, DataFolder, Host, Port
from cli.output import command_line, examples, fail, note, read_settings
from cli.service.embedded_redis import StartError
from cli.service.service import Service, stop_signals
from model.rating import Rating
from worker.settings import Settings

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "kirazuri up",
        "kirazuri up --port 9000 --data /srv/kirazuri --workers 2",
        "kirazuri up --card kirazuri-v1 --checkpoint-dir ~/checkpoints/kirazuri-v1",
    )
)
def up(
    port: Port = 8000,
    host: Host = "127.0.0.1",
    data: DataFolder = None,
    card: CardName = None,
    checkpoint_dir: CheckpointFolder = None,
    lora_dir: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of the LoRA files."),
    ] = None,
    max_rating: Annotated[
        Rating | None, typer.Option(help="The highest rating of requests whose key sets none.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Number of workers; each loads the model.")
    ] = 1,
) -> None:
    """Start Redis, API and workers, report when they are ready, and stop them on Ctrl-C.

    An embedded Redis keeps the queue in the data folder, unless KIRAZURI_REDIS_URL names another
    one. Every setting can also be given as a KIRAZURI_ variable or in a file named .env.
    """
    settings = read_settings(
        data_dir=data,
        card=card,
        checkpoint_dir=checkpoint_dir,
        lora_dir=lora_dir,
        max_rating=max_rating,
    )
    try:
        with stop_signals():
            require_start(settings, host=host, port=port, workers=workers)
            with Service(settings, host=host, port=port, workers=workers) as service:
                typer.echo(f"{service.url} is the page: open it in a browser")
                typer.echo(f"ready at {service.url} (API documentation: {service.url}/docs)")
                if service.requires_key():
                    typer.echo(f"it requires an API key; this makes one: {keys_command(settings)}")
                service.watch()
    except StartError as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        if settings.log_format == "text":
            note("stopped")


def keys_command(settings: Settings) -> str:
    """The command that makes a key for this service, from any folder."""
    if settings.redis_url is None:
        return command_line("keys", "add", "NAME", "--data", settings.data_dir.absolute())
    # The URL itself may hold a password, and this line is often logged.
    return f"{command_line('keys', 'add', 'NAME')} (with the same KIRAZURI_REDIS_URL)"

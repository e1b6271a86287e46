"""`make demo`: start the service, make one picture through its HTTP API, say how to go on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.client.generate import GenerationError, SavedImage, generate
from cli.main import show_saved
from cli.output import fail, read_settings
from cli.service.embedded_redis import StartError
from cli.service.service import Service, find_port, stop_signals
from model.card import Card, load_card

_HOST = "127.0.0.1"
_USUAL_PORT = 8000
_OUT = Path("out/demo.png")
_SEED = 7
_TIMEOUT = 300.0


def demo(
    port: Annotated[int | None, typer.Option(help="8000, or a free one if that is taken.")] = None,
    once: Annotated[bool, typer.Option(help="Stop after the picture.")] = False,
) -> None:
    """Start everything, save one picture to out/demo.png, and keep serving until Ctrl-C."""
    settings = read_settings(card="kirazuri-tiny")
    try:
        with (
            stop_signals(),
            Service(settings, host=_HOST, port=_choose(port), workers=1) as service,
        ):
            card = load_card(settings.card)
            _tell(_make_picture(service.url, card), card, service.url)
            if not once:
                service.watch()
    except (StartError, GenerationError) as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _choose(port: int | None) -> int:
    if port is not None:
        return port
    try:
        return find_port(_HOST, _USUAL_PORT)
    except StartError:
        return find_port(_HOST, 0)


def _make_picture(url: str, card: Card) -> list[SavedImage]:
    """One picture of the card's example prompt at its largest preset."""
    preset = max(card.resolutions, key=lambda size: size.width * size.height)
    body = {"prompt": card.prompting.example, "resolution": preset.name, "seed": _SEED}
    return generate(body, url=url, out=_OUT, timeout=_TIMEOUT, console=Console(stderr=True))


def _tell(saved: list[SavedImage], card: Card, url: str) -> None:
    typer.echo(f"\nprompt: {card.prompting.example}")
    show_saved(saved)
    typer.echo(
        "\nThe next one:\n"
        '  .venv/bin/kirazuri generate "1girl, pink hair, ponytail, green eyes, smile" '
        f"--url {url} --out out/next.png\n"
        f"  curl -s {url}/generate -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\\n"
        """    -d '{"prompt": "1girl, pink hair, ponytail, green eyes, smile"}'\n"""
        f"The whole API: {url}/docs\n"
    )


if __name__ == "__main__":
    typer.run(demo)

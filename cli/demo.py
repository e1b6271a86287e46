"""`make demo`: starts the service, makes one image through its HTTP API, shows what to try next."""

from worker.start_up import interruptible

with interruptible():
    from pathlib import Path
    from typing import Annotated

    import typer
    from rich.console import Console

    from cli.checks.start import require_start
    from cli.client.api import generate
    from cli.client.errors import ClientError
    from cli.client.images import SavedImage
    from cli.output import fail, read_settings
    from cli.service.embedded_redis import StartError
    from cli.service.service import Service, find_port, stop_signals
    from model.card import Card, load_card

_HOST = "127.0.0.1"
_DEFAULT_PORT = 8000
_OUT = Path("out/demo.png")
_SEED = 7
_TIMEOUT = 300.0


def demo(
    port: Annotated[int | None, typer.Option(help="Default: 8000, or a free port.")] = None,
    once: Annotated[bool, typer.Option(help="Stop after the image.")] = False,
) -> None:
    """Start the service, save one image to out/demo.png, and keep serving until Ctrl-C."""
    settings = read_settings(card="kirazuri-tiny")
    try:
        with stop_signals():
            chosen = _choose_port(port)
            require_start(settings, host=_HOST, port=chosen, workers=1)
            with Service(settings, host=_HOST, port=chosen, workers=1) as service:
                _show(service, load_card(settings.card), once=once)
    except (StartError, ClientError) as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _show(service: Service, card: Card, *, once: bool) -> None:
    if not once:
        typer.echo(f"{service.url} is the page: open it in a browser")
    typer.echo(f"\nmaking an image of: {card.prompting.example}")
    for image in _make_image(service.url, card):
        typer.echo(image)
    if once:
        typer.echo("Without --once (`make demo` without ONCE=1), the service goes on.\n")
    else:
        _show_next_steps(service.url)
        service.watch()


def _choose_port(port: int | None) -> int:
    if port is not None:
        return port
    try:
        return find_port(_HOST, _DEFAULT_PORT)
    except StartError:
        return find_port(_HOST, 0)


def _make_image(url: str, card: Card) -> list[SavedImage]:
    """One image of the card's example prompt at its largest preset."""
    preset = max(card.resolutions, key=lambda size: size.width * size.height)
    body = {"prompt": card.prompting.example, "resolution": preset.name, "seed": _SEED}
    done = generate(body, url=url, out=_OUT, timeout=_TIMEOUT, console=Console(stderr=True))
    return done.images


def _show_next_steps(url: str) -> None:
    typer.echo(
        "\nThe next image, from another terminal:\n"
        '  .venv/bin/kirazuri generate "1girl, pink hair, ponytail, green eyes, smile" '
        f"--url {url} --out out/next.png\n"
        f"  curl -s {url}/generate -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\\n"
        """    -d '{"prompt": "1girl, pink hair, ponytail, green eyes, smile"}'\n"""
        f"API documentation: {url}/docs\n"
        "Ctrl-C stops the service.\n"
    )


if __name__ == "__main__":
    typer.run(demo)

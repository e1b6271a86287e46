"""The command `kirazuri`. Loads neither torch nor the model."""

import typer

from cli.commands import (
    bench,
    certificate,
    checkpoint,
    generate,
    keys,
    replay,
    up,
    verify,
    version,
)

app = typer.Typer(
    name="kirazuri",
    help="Turns a Danbooru-style prompt into an image URL.",
    epilog='Start with `kirazuri up`, then `kirazuri generate "1girl, blue hair, smile"`.',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up, generate, replay, verify, certificate, bench, version):
    app.add_typer(command.app)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(keys.app, name="keys")

if __name__ == "__main__":
    app()

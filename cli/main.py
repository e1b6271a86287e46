"""The command `kirazuri`. Loads neither torch nor the model; `--help` loads no command."""

from worker.start_up import end_on_interrupt, interruptible

with interruptible():
    import contextlib
    import sys
    from typing import Annotated

    import typer

    from cli.command_group import Place, group_of
    from cli.output import INTERRUPTED, print_what_cannot_be_encoded, warn


def _show_version(is_version: bool) -> None:
    if is_version:
        from cli.commands.version import print_version

        print_version()
        raise typer.Exit


_PICTURES = "Pictures"
_SERVICE = "About a service"
_OPERATING = "Operating"
_JOBS_MODULE = "cli.commands.client.jobs"
_OFFERS_MODULE = "cli.commands.client.offers"

COMMANDS = {
    "generate": Place(
        "cli.commands.client.generate",
        "Make images with a running service and save them.",
        _PICTURES,
    ),
    "jobs": Place(_JOBS_MODULE, "List your jobs, newest first.", _PICTURES),
    "show": Place(_JOBS_MODULE, "Show a job.", _PICTURES),
    "cancel": Place(_JOBS_MODULE, "Cancel jobs, queued or running.", _PICTURES),
    "links": Place(
        _JOBS_MODULE, "Sign URLs of a job that a browser can read without a key.", _PICTURES
    ),
    "download": Place("cli.commands.client.images", "Save the images of a job.", _PICTURES),
    "replay": Place("cli.commands.client.images", "Run a job again and compare.", _PICTURES),
    "verify": Place(
        "cli.commands.client.images",
        "Report whether an image was generated, as far as a service can know.",
        _PICTURES,
    ),
    "capabilities": Place(_OFFERS_MODULE, "List what requests may ask for.", _SERVICE),
    "models": Place(_OFFERS_MODULE, "List the checkpoints of a service.", _SERVICE),
    "loras": Place(_OFFERS_MODULE, "List the LoRAs of a service, and the refused files.", _SERVICE),
    "tags": Place(_OFFERS_MODULE, "Complete a tag.", _SERVICE),
    "queue": Place(
        _OFFERS_MODULE, "Show the queue: its length, the workers and their pace.", _SERVICE
    ),
    "up": Place(
        "cli.commands.up",
        "Start Redis, API and workers, report when they are ready, and stop them on Ctrl-C.",
        _OPERATING,
    ),
    "doctor": Place(
        "cli.commands.doctor", "Check this machine and the settings before a start.", _OPERATING
    ),
    "checkpoint": Place(
        "cli.commands.checkpoint", "Inspect, download and convert checkpoints.", _OPERATING
    ),
    "keys": Place("cli.commands.keys", "Make, list and revoke API keys.", _OPERATING),
    "certificate": Place(
        "cli.commands.certificate",
        "Make a certificate to sign images with (C2PA), issued by your own certificate authority.",
        _OPERATING,
    ),
    "bench": Place("cli.commands.bench", "Measure speed; each benchmark is a command.", _OPERATING),
    "version": Place("cli.commands.version", "Print the version.", _OPERATING),
}

app = typer.Typer(
    name="kirazuri",
    cls=group_of(COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(
    help="Turns a Danbooru-style prompt into an image URL.",
    epilog='Start with `kirazuri up`, then `kirazuri generate "1girl, blue hair, smile"`.',
)
def before_each_command(
    context: typer.Context,
    is_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print it.")
    ] = False,
) -> None:
    """Warn of variables that are no settings. The processes of `kirazuri up` log them."""
    print_what_cannot_be_encoded()
    if context.invoked_subcommand != "up":
        from worker.misspelt_settings import warnings_about_names

        # A command that needs the settings says that `.env` cannot be read.
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for warning in warnings_about_names():
                warn(warning)


def main() -> None:
    """Run the command of the command line."""
    try:
        app()
    except KeyboardInterrupt:  # before the command or after it
        sys.exit(INTERRUPTED)
    finally:
        end_on_interrupt()


if __name__ == "__main__":
    main()

"""`kirazuri`: start the service, ask it for pictures. Loads neither the model nor torch."""

import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.client.dry_run import describe
from cli.client.edits import PictureError, edits
from cli.client.generate import (
    GenerationError,
    SavedImage,
    capabilities,
    format_of,
    lora_choice,
    options_of,
    plan,
)
from cli.client.generate import generate as generate_images
from cli.client.generate import replay as replay_job
from cli.client.generate import verify as verify_image
from cli.client.source import SourceError, fit, read_source
from cli.commands import checkpoint, keys
from cli.output import examples, fail, read_settings
from cli.service.embedded_redis import StartError
from cli.service.service import Service, stop_signals

INTERRUPTED = 130
USAGE = 2
DEFAULT_URL = "http://127.0.0.1:8000"

app = typer.Typer(
    name="kirazuri",
    help="From a Danbooru-style prompt to an image URL.",
    epilog='Start with `kirazuri up`, then `kirazuri generate "1girl, blue hair, smile"`.',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(keys.app, name="keys")


def show_saved(saved: list[SavedImage]) -> None:
    """One line for every picture: file, seed, URL."""
    for image in saved:
        typer.echo(f"{image.path}  seed {image.seed}  {image.url}")


@app.command(
    epilog=examples(
        "kirazuri up",
        "kirazuri up --port 9000 --data /srv/kirazuri --workers 2",
        "kirazuri up --card kirazuri-v1 --checkpoint-dir ~/checkpoints/kirazuri-v1",
    )
)
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves other machines too.")] = "127.0.0.1",
    data: Annotated[
        Path | None, typer.Option(help="Folder of the images and the embedded Redis.")
    ] = None,
    card: Annotated[
        str | None, typer.Option(help="Which checkpoint: a card's name or .toml path.")
    ] = None,
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoint's files.")
    ] = None,
    lora_dir: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of LoRA files that may be used."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes with a model each.")] = 1,
) -> None:
    """Start Redis, API and workers, say when they are ready, and stop all on Ctrl-C.

    A Redis of its own keeps the queue in the data folder, unless KIRAZURI_REDIS_URL names another.
    Every setting can also be given as a KIRAZURI_ variable or in a file .env.
    """
    settings = read_settings(
        data_dir=data, card=card, checkpoint_dir=checkpoint_dir, lora_dir=lora_dir
    )
    try:
        with (
            stop_signals(),
            Service(settings, host=host, port=port, workers=workers) as service,
        ):
            typer.echo(f"ready at {service.url} (API description: {service.url}/docs)")
            if service.asks_for_key():
                typer.echo("it asks for an API key; `kirazuri keys add NAME` makes one")
            service.watch()
    except StartError as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        if settings.log_format == "text":
            typer.echo("stopped", err=True)


@app.command(
    epilog=examples(
        'kirazuri generate "1girl, blue hair, twintails, smile" --out girl.png',
        'kirazuri generate "1boy, green eyes" --sampler sa_solver_pece --steps 15 --num-images 4',
        'kirazuri generate "1girl" --resolution portrait --seed 7 --format webp --out pictures/',
        'kirazuri generate "1girl, long_hair" --dry-run',
        'kirazuri generate "1girl, pink hair" --init-image girl.png --strength 0.5',
        "kirazuri generate --from girl.png --seed 8",
        'kirazuri generate "1girl" --lora watercolor:0.8 --lora hats',
        "kirazuri generate --from girl.png --hires-scale 1.5",
    )
)
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="Danbooru-style tags, prose, or both.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A picture to make again, of this service, A1111 or ComfyUI; options win over it.",
        ),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help='What to steer away from; "" for nothing.')
    ] = None,
    resolution: Annotated[
        str | None, typer.Option(help="A preset, such as portrait, or WIDTHxHEIGHT.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="Guidance; 1 is none.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Such as er_sde.")] = None,
    sampler_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Such as eta=0.5; once for each option."),
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="Such as simple.")] = None,
    seed: Annotated[int | None, typer.Option(help="Drawn if not given.")] = None,
    num_images: Annotated[int | None, typer.Option(help="Image k has seed + k.")] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:WEIGHT]", help="A LoRA of the service; may be repeated."),
    ] = None,
    image_format: Annotated[
        str | None, typer.Option("--format", help="png, webp, jpeg or avif; or by --out's ending.")
    ] = None,
    init_image: Annotated[
        str | None,
        typer.Option(help="The picture to start from: a file, or an image of the service."),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of it may change, 0 to 1.")
    ] = None,
    mask: Annotated[
        str | None, typer.Option(help="What of it is repainted: white; black stays as it is.")
    ] = None,
    hires_scale: Annotated[
        float | None, typer.Option(help="Enlarge by so much and sample again, such as 1.5.")
    ] = None,
    hires_steps: Annotated[int | None, typer.Option(help="Steps of the second pass.")] = None,
    hires_strength: Annotated[
        float | None, typer.Option(help="How much the second pass may change, 0 to 1.")
    ] = None,
    hires_upscaler: Annotated[str | None, typer.Option(help="lanczos or latent.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bytes on the same kind of worker.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File or folder to save to.")] = None,
    url: Annotated[str, typer.Option(help="Where the service is.")] = DEFAULT_URL,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until it gives up.")] = 600,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what the request would become.")
    ] = False,
) -> None:
    """Have a running service make pictures, and save them.

    What is not given is the checkpoint's default. Ctrl-C cancels the job.
    """
    given: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "resolution": resolution,
        "steps": steps,
        "cfg_scale": cfg_scale,
        "sampler": sampler,
        "scheduler": scheduler,
        "seed": seed,
        "num_images": num_images,
        "deterministic": deterministic or None,
    }
    if prompt is None and source is None:
        fail("give a prompt, or a picture with --from", USAGE)
    hires = {
        "scale": hires_scale,
        "steps": hires_steps,
        "strength": hires_strength,
        "upscaler": hires_upscaler,
    }
    try:
        given["sampler_options"] = options_of(sampler_option)
        given |= edits(init_image, mask, strength, hires)
        given["image_format"] = image_format or format_of(out)
        given["loras"] = [lora_choice(text) for text in lora] if lora else None
        body = _fields_of(source, url, sampler) if source else {}
        body |= {name: value for name, value in given.items() if value is not None}
        if dry_run:
            typer.echo("\n".join(describe(plan(body, url=url))))
            return
        console = Console(stderr=True)
        show_saved(generate_images(body, url=url, out=out, timeout=timeout, console=console))
    except (GenerationError, PictureError, SourceError) as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        fail("interrupted; the job is cancelled", INTERRUPTED)


def _fields_of(source: Path, url: str, sampler: str | None) -> dict[str, Any]:
    """What a picture's file asks for; what is lost on the way is told on stderr.

    The options of the file's sampler mean nothing to another `sampler` that was asked for.
    """
    reading = fit(read_source(source), capabilities(url))
    if sampler not in (None, reading.fields.get("sampler")):
        reading.fields.pop("sampler_options", None)
    for note in reading.notes:
        typer.echo(f"warning: {note}", err=True)
    return reading.fields


@app.command(epilog=examples("kirazuri replay 01JD6Z1Q8M4T0V7C2N5K9R3XWB"))
def replay(
    job_id: Annotated[str, typer.Argument(help="A job that succeeded and has not expired.")],
    url: Annotated[str, typer.Option(help="Where the service is.")] = DEFAULT_URL,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until it gives up.")] = 600,
) -> None:
    """Run a job again and compare: exit code 0 where every picture is the same bytes, else 1."""
    try:
        job = replay_job(job_id, url=url, timeout=timeout, console=Console(stderr=True))
    except GenerationError as exc:
        fail(str(exc))
    except KeyboardInterrupt:
        fail("interrupted; the job is cancelled", INTERRUPTED)
    for warning in job["warnings"]:
        typer.echo(f"warning: {warning['detail']}", err=True)
    typer.echo(f"{job['id']}  {'matches' if job['matches'] else 'differs from'} {job_id}")
    if not job["matches"]:
        raise typer.Exit(1)


@app.command(epilog=examples("kirazuri verify girl.png"))
def verify(
    image: Annotated[Path, typer.Argument(help="A PNG, WebP, JPEG or AVIF file.")],
    url: Annotated[str, typer.Option(help="Where the service is.")] = DEFAULT_URL,
) -> None:
    """Say whether a model made an image, as far as a service can know."""
    try:
        found = verify_image(image, url=url)
    except GenerationError as exc:
        fail(str(exc))
    typer.echo("\n".join([found["verdict"], *found["summary"]]))


@app.command(epilog=examples('kirazuri certificate signing --organisation "Studio Kirazuri"'))
def certificate(
    folder: Annotated[Path, typer.Argument(help="Where to; its ca.pem is used if it is there.")],
    organisation: Annotated[
        str, typer.Option(help="Who signs; shown with every picture.")
    ] = "Kirazuri Server",
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it may sign.")] = 365,
) -> None:
    """Make a certificate to sign pictures with (C2PA), from an authority of your own."""
    # Loaded here: the other commands need not wait for it.
    from cli.certificates import make_certificate

    try:
        make_certificate(folder, organisation=organisation, days=days)
    except (OSError, ValueError) as exc:
        fail(str(exc))
    typer.echo(f"KIRAZURI_C2PA_CERTIFICATE={folder / 'certificate.pem'}")
    typer.echo(f"KIRAZURI_C2PA_KEY={folder / 'key.pem'}")
    typer.echo(f"give {folder / 'ca.pem'} to those who check pictures; keep the keys", err=True)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> None:
    """Time a picture here beside the library's own pipeline; `bench --help` lists the options.

    `bench schedule` simulates what scheduling at step boundaries is worth under load, `bench lora`
    times changing LoRAs.
    """
    # A process of its own: this one stays without torch.
    subject = context.args[0] if context.args[:1] in (["schedule"], ["lora"]) else ""
    module = f"model.bench_{subject}" if subject else "model.bench.picture"
    command = [sys.executable, "-m", module, *context.args[bool(subject) :]]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603


@app.command()
def version() -> None:
    """Say which version this is."""
    typer.echo(f"kirazuri-server {installed_version('kirazuri-server')}")


if __name__ == "__main__":
    app()

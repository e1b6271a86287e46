"""`kirazuri generate`: has a running service make images, and saves them."""

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from cli.client import api
from cli.client.dry_run import describe
from cli.client.errors import ClientError, exit_on_error
from cli.client.fields import hires_field, image_field, lora_field, sampler_options_field
from cli.client.images import format_of
from cli.client.source import keep_offered, read_source
from cli.commands import generate_options as options
from cli.commands.service_option import FROM_SETTINGS, Url
from cli.options import DEFAULT_TIMEOUT, Timeout
from cli.output import USAGE_ERROR, examples, fail

app = typer.Typer()


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
    context: typer.Context,
    prompt: options.Prompt = None,
    source: options.SourceImage = None,
    negative_prompt: options.NegativePrompt = None,
    resolution: options.Resolution = None,
    steps: options.Steps = None,
    cfg_scale: options.CfgScale = None,
    sampler: options.Sampler = None,
    sampler_option: options.SamplerOption = None,
    scheduler: options.Scheduler = None,
    seed: options.Seed = None,
    num_images: options.NumImages = None,
    lora: options.Lora = None,
    image_format: options.ImageFormat = None,
    init_image: options.InitImage = None,
    strength: options.Strength = None,
    mask: options.Mask = None,
    hires_scale: options.HiresScale = None,
    hires_steps: options.HiresSteps = None,
    hires_strength: options.HiresStrength = None,
    hires_upscaler: options.HiresUpscaler = None,
    deterministic: options.Deterministic = False,
    out: options.Out = None,
    url: Url = FROM_SETTINGS,
    timeout: Timeout = DEFAULT_TIMEOUT,
    dry_run: options.DryRun = False,
) -> None:
    """Make images with a running service and save them. Prints the warnings of the job.

    The checkpoint's defaults apply to options that are not given. Ctrl-C cancels the job.
    """
    if prompt is None and source is None:
        fail("give a prompt, or an image with --from", USAGE_ERROR)
    with exit_on_error():
        given = _given_fields(context.params, out)
        body = {**(_source_fields(source, url, sampler) if source else {}), **given}
        if dry_run:
            typer.echo("\n".join(describe(api.dry_run(body, url=url))))
            return
        console = Console(stderr=True)
        done = api.generate(body, url=url, out=out, timeout=timeout, console=console)
        for warning in done.warnings:
            typer.echo(f"warning: {warning}", err=True)
        for image in done.images:
            typer.echo(image)


_UNCHANGED = (
    *("prompt", "negative_prompt", "resolution", "steps", "cfg_scale", "sampler", "scheduler"),
    *("seed", "num_images", "strength"),
)
"""Options that are fields of the request as they are."""


def _given_fields(given: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """The fields of the request from the options that were given."""
    fields = {name: given[name] for name in _UNCHANGED}
    fields["deterministic"] = given["deterministic"] or None
    fields["sampler_options"] = sampler_options_field(given["sampler_option"])
    for name in ("init_image", "mask"):
        if given[name] is not None:
            fields[name] = image_field(f"--{name.replace('_', '-')}", given[name])
    second_pass = ("scale", "steps", "strength", "upscaler")
    fields["hires"] = hires_field({name: given[f"hires_{name}"] for name in second_pass})
    of_name, asked = format_of(out), given["image_format"]
    if of_name and asked and of_name != asked:
        raise ClientError(f"--out {out} and --format {asked} contradict each other")
    fields["image_format"] = asked or of_name
    fields["loras"] = [lora_field(text) for text in given["lora"] or ()] or None
    return {name: value for name, value in fields.items() if value is not None}


def _source_fields(source: Path, url: str, sampler: str | None) -> dict[str, Any]:
    """The fields that an image file asks for; prints a warning for everything left out.

    If another `sampler` is asked for, the sampler options of the file are left out.
    """
    imported = keep_offered(read_source(source), api.capabilities(url))
    if sampler not in (None, imported.fields.get("sampler")):
        imported.fields.pop("sampler_options", None)
    for note in imported.notes:
        typer.echo(f"warning: {note}", err=True)
    return imported.fields

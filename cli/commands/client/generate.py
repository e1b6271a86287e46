"""`kirazuri generate`: has a running service make images, and saves them."""

import sys
from collections import Counter
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from cli.client import api
from cli.client.connection import open_client
from cli.client.descriptions import describe_plan
from cli.client.errors import WrongUsage, exit_on_error
from cli.client.fields import (
    hires_field,
    image_field,
    lora_field,
    require_json,
    sampler_options_field,
)
from cli.client.images import Target, format_of
from cli.client.progress import count_progress
from cli.client.prompt_file import PromptRun, Results, read_prompts
from cli.client.source import keep_offered, read_source
from cli.commands.client import generate_options as options
from cli.commands.client.service_option import FROM_SETTINGS, Url
from cli.options import DEFAULT_TIMEOUT, AsJson, Force, Out, Sheet, Timeout
from cli.output import FAILED, examples, note, print_fields, print_json, warn

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        'kirazuri generate "1girl, blue hair, twintails, smile" --out girl.png',
        'kirazuri generate "1boy, green eyes" --num-images 4 --out boy.png --sheet all.png',
        'kirazuri generate "1girl" --resolution portrait --seed 7 --format webp --out pictures/',
        'kirazuri generate "1girl, long_hair" --dry-run',
        'kirazuri generate "1girl, pink hair" --init-image girl.png --strength 0.5',
        "kirazuri generate --from girl.png --seed 8",
        'kirazuri generate "1girl" --lora watercolor:0.8 --lora hats',
        "kirazuri generate --from girl.png --hires-scale 1.5",
        "kirazuri generate --prompts prompts.txt --steps 20 --out pictures/",
        "echo '1girl, smile' | kirazuri generate - --json",
    )
)
def generate(
    context: typer.Context,
    prompt: options.Prompt = None,
    source: options.SourceImage = None,
    prompts: options.PromptFile = None,
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
    quality: options.Quality = None,
    deterministic: options.Deterministic = False,
    out: Out = None,
    sheet: Sheet = None,
    force: Force = False,
    is_watching: options.Watch = True,
    at_once: options.AtOnce = 4,
    url: Url = FROM_SETTINGS,
    timeout: Timeout = DEFAULT_TIMEOUT,
    dry_run: options.DryRun = False,
    is_json: AsJson = False,
) -> None:
    """Make images with a running service and save them. Prints the warnings of the job.

    The checkpoint's defaults apply to options that are not given. Ctrl-C cancels the job.
    With --json: the job with `files`; with --prompts always one line of JSON per prompt.
    """
    given = {**context.params, "out": out, "sheet": sheet}  # as paths
    with exit_on_error(
        "interrupted; the job is cancelled"
        if prompts is None
        else "interrupted; its jobs are cancelled, the same command continues"
    ):
        _check_combination(given)
        fields = _given_fields(given, out)
        require_json(fields)
        body = {**(_source_fields(source, url, sampler) if source else {}), **fields}
        if prompts is not None:
            _run_prompts(given, body)
        elif dry_run:
            plan = api.dry_run(body, url=url)
            print_json(plan) if is_json else print_fields(describe_plan(plan))
        elif not is_watching:
            job = api.submit(body, url=url)
            print_json(job) if is_json else typer.echo(job["id"])
        else:
            _make_images(given, body)


def _make_images(given: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    target = Target(given["out"], given["sheet"], may_overwrite=given["force"])
    target.require_free(body.get("num_images") or 1)
    done = api.generate(
        body,
        url=given["url"],
        target=target,
        timeout=given["timeout"],
        console=Console(stderr=True),
    )
    for warning in done.warnings:
        warn(warning)
    if given["is_json"]:
        print_json(done.as_json())
        return
    for image in done.images:
        typer.echo(image)


def _run_prompts(given: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Run a file of prompts; the exit code is 0 if all succeeded, now or earlier."""
    lines = read_prompts(StringIO(_text_of(given["prompts"]), newline=None), body)
    folder: Path = given["out"] or Path()
    if folder.suffix and not folder.is_dir():
        raise WrongUsage(f"--out {folder}: with --prompts it must be a folder")
    results = Results(folder)
    todo = [line for line in lines if not results.is_done(line)]
    target = Target(folder, may_overwrite=given["force"])
    counts: Counter[str] = Counter()
    console = Console(stderr=True)
    try:
        with (
            open_client(given["url"]) as client,
            count_progress(console, "prompts", len(todo)) as advance,
        ):
            run = PromptRun(
                client, results, target, at_once=given["at_once"], timeout=given["timeout"]
            )
            for result in run.run(todo):
                counts[result["status"]] += 1
                print_json(result, is_line=True)
                advance(1)
    finally:
        ended = ", ".join(f"{count} {status}" for status, count in counts.items())
        left = len(todo) - counts.total()
        all_of_them = "1 prompt" if len(lines) == 1 else f"{len(lines)} prompts"
        note(
            f"{all_of_them}: {len(lines) - len(todo)} done before"
            f"{f', {ended}' if ended else ''}{f', {left} are left' if left else ''}"
        )
    if counts.total() > counts["succeeded"]:
        raise typer.Exit(FAILED)


def _check_combination(given: Mapping[str, Any]) -> None:
    """Refuse options that exclude each other."""
    if not any(given[name] for name in ("prompt", "source", "prompts")):
        raise WrongUsage("give a prompt, an image with --from, or a file with --prompts")
    if given["prompts"] is not None:
        unfit = {
            "a prompt": given["prompt"],
            "--sheet": given["sheet"],
            "--dry-run": given["dry_run"],
            "--no-watch": not given["is_watching"],
        }
        for name, value in unfit.items():
            if value:
                raise WrongUsage(f"--prompts and {name} exclude each other")
    elif not given["is_watching"] and (given["out"] or given["sheet"]):
        raise WrongUsage("--no-watch saves nothing; `kirazuri download JOB` does it later")


def _text_of(file: str) -> str:
    """The text of a file, or of stdin for `-`."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as exc:
        raise WrongUsage(f"cannot read {file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise WrongUsage(f"{file} is not UTF-8 text; save it as UTF-8") from exc


_UNCHANGED = (
    *("negative_prompt", "resolution", "steps", "cfg_scale", "sampler", "scheduler"),
    *("seed", "num_images", "strength", "quality"),
)
"""Options that are fields of the request as they are."""


def _given_fields(given: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
    """The fields of the request from the options that were given."""
    fields = {name: given[name] for name in _UNCHANGED}
    fields["prompt"] = _text_of("-").strip() if given["prompt"] == "-" else given["prompt"]
    fields["deterministic"] = given["deterministic"] or None
    fields["sampler_options"] = sampler_options_field(given["sampler_option"])
    for name in ("init_image", "mask"):
        if given[name] is not None:
            fields[name] = image_field(f"--{name.replace('_', '-')}", given[name])
    second_pass = ("scale", "steps", "strength", "upscaler")
    fields["hires"] = hires_field({name: given[f"hires_{name}"] for name in second_pass})
    of_name, asked = format_of(out), given["image_format"]
    if of_name and asked and of_name != asked:
        raise WrongUsage(f"--out {out} and --format {asked} contradict each other")
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
    for text in imported.notes:
        warn(text)
    return imported.fields

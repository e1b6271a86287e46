"""The options of `kirazuri generate`."""

from pathlib import Path
from typing import Annotated

import typer

from model.request import Hires, field_description

Prompt = Annotated[
    str | None, typer.Argument(help=f"{field_description('prompt')} - reads it from stdin.")
]
SourceImage = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="An image of this service, A1111 or ComfyUI to make again; options override it.",
    ),
]
NegativePrompt = Annotated[str | None, typer.Option(help=field_description("negative_prompt"))]
Resolution = Annotated[
    str | None, typer.Option(help="A preset, such as portrait, or WIDTHxHEIGHT.")
]
Steps = Annotated[int | None, typer.Option(help=field_description("steps"))]
CfgScale = Annotated[float | None, typer.Option(help=field_description("cfg_scale"))]
Sampler = Annotated[str | None, typer.Option(help="Such as er_sde.")]
SamplerOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Such as eta=0.5; may be repeated."),
]
Scheduler = Annotated[str | None, typer.Option(help="Such as simple.")]
Seed = Annotated[int | None, typer.Option(help=field_description("seed"))]
NumImages = Annotated[int | None, typer.Option(help=field_description("num_images"))]
Lora = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[:WEIGHT]", help="A LoRA of the service; may be repeated."),
]
ImageFormat = Annotated[
    str | None,
    typer.Option("--format", help="png, webp, jpeg or avif; default: the suffix of --out."),
]
InitImage = Annotated[
    str | None,
    typer.Option(help="The image to start from: a file, or an image of the service."),
]
Strength = Annotated[float | None, typer.Option(help="How much of it may change, 0 to 1.")]
Mask = Annotated[
    str | None, typer.Option(help="White areas are repainted, black areas stay unchanged.")
]
HiresScale = Annotated[
    float | None, typer.Option(help="Enlarge by this factor and sample again, such as 1.5.")
]
HiresSteps = Annotated[int | None, typer.Option(help=field_description("steps", Hires))]
HiresStrength = Annotated[float | None, typer.Option(help=field_description("strength", Hires))]
HiresUpscaler = Annotated[str | None, typer.Option(help="lanczos or latent.")]
Quality = Annotated[
    str | None,
    typer.Option(help="exact, or a faster one that the checkpoint offers: balanced or fast."),
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Same bytes on every worker of the same kind.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what the request resolves to; make no image.")
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch/--no-watch",
        help="Wait for the images, with a progress line; or print the job's id and end.",
    ),
]
PromptFile = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="A prompt or a JSON object of fields a line, - for stdin. Images and results.jsonl "
        "go to the folder --out; the same command continues what was interrupted.",
    ),
]
AtOnce = Annotated[
    int, typer.Option(min=1, max=64, help="With --prompts: how many jobs wait or run at a time.")
]

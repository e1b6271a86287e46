"""`kirazuri bench`: runs a benchmark of model.bench or cli.bench."""

import sys
from importlib import import_module

import typer

app = typer.Typer(
    help="Measure speed; each benchmark is a command.", no_args_is_help=True, add_completion=False
)

BENCHMARKS = {
    "picture": ("model.bench.picture", "Compare one image with the diffusers pipeline."),
    "baseline": (
        "model.bench.baseline",
        "Search the best arrangement of processes for the engine and for diffusers.",
    ),
    "engine": ("model.bench.engine_speed", "Measure a forward, a step and an image of every size."),
    "counts": (
        "model.bench.counts",
        "Count the work of one forward and one step, without a GPU.",
    ),
    "lora": ("model.bench.lora", "Measure how long it takes to change LoRAs."),
    "schedule": (
        "model.bench.scheduling",
        "Simulate the effect of scheduling at step boundaries under load.",
    ),
    "serve": (
        "cli.bench.serving.serve",
        "Measure a running server: saturation, and arrivals at random.",
    ),
    "start": ("cli.bench.serving.start", "Measure the time to the first image."),
    "queue": (
        "cli.bench.queue",
        "Measure how the queue behaves with up to 100 000 waiting jobs.",
    ),
    "codecs": ("cli.bench.codecs", "Measure the encoding of images."),
}
"""The module of each benchmark, and what it measures."""


def _run(context: typer.Context) -> None:
    """Run the module of the command, with its arguments. Nothing has loaded torch before."""
    module, _ = BENCHMARKS[context.info_name or ""]
    sys.argv = [module, *context.args]
    import_module(module).main()


for _name, (_module, _text) in BENCHMARKS.items():
    app.command(
        _name,
        help=f"{_text} `kirazuri bench {_name} --help` lists its options.",
        short_help=_text,
        add_help_option=False,  # the module has options of its own
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_run)

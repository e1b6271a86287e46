"""`kirazuri bench`: runs a benchmark of model.bench or cli.bench in a new process."""

import subprocess
import sys

import typer

app = typer.Typer()

_MODULES = {
    "schedule": "model.bench.scheduling",
    "lora": "model.bench.lora",
    "counts": "model.bench.counts",
    "queue": "cli.bench.queue",
    "codecs": "cli.bench.codecs",
    "serve": "cli.bench.serving.serve",
    "start": "cli.bench.serving.start",
    "engine": "model.bench.engine_speed",
    "baseline": "model.bench.baseline",
}


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench(context: typer.Context) -> None:
    """Compare the speed of one image with the diffusers pipeline; see `bench --help`.

    `bench schedule` simulates the effect of scheduling at step boundaries under load.
    `bench lora` measures how long it takes to change LoRAs.
    `bench engine` measures a forward, a step and a picture of every size.
    `bench baseline` searches the best arrangement of processes for both.
    `bench serve` measures a running server: saturation, and arrivals at random.
    `bench start` measures the time to the first picture.
    `bench codecs` measures the encoding of images.
    `bench counts` counts the work of one forward and one step, without a GPU.
    `bench queue` measures how the queue behaves with up to 100 000 waiting jobs.
    """
    # A new process, so that this one does not load torch.
    module, arguments = "model.bench.picture", context.args
    if arguments and arguments[0] in _MODULES:
        module, arguments = _MODULES[arguments[0]], arguments[1:]
    command = [sys.executable, "-m", module, *arguments]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603

"""Measures a forward, a step and a picture of the engine, as a share of the device's matrix peak.

Run by `kirazuri bench engine`. The peak is the fastest of some large matrix products in the
engine's precision, measured in the same run.
"""

import argparse
import statistics
import time
from typing import Any

import torch

from model.bench.counts import count_ours, transformer_sizes
from model.bench.picture import add_request_options, open_engine, run_engine
from model.bench.report import add_json_option, print_report
from model.card import load_card
from model.engine.engine import Engine
from model.resolved_request import ResolvedRequest

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(prog="kirazuri bench engine", description=__doc__)
    add_request_options(parser)
    parser.add_argument("--presets", nargs="+", help="of the card (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--matrix", type=int, default=1024, help="side of the matrices")
    add_json_option(parser)
    options = parser.parse_args()
    card = load_card(options.card)
    presets = options.presets or [preset.name for preset in card.resolutions]
    peak, rows = 0.0, []
    for preset in presets:
        engine, request = open_engine(argparse.Namespace(**{**vars(options), "resolution": preset}))
        about = engine.description()
        if not peak:
            device = torch.device(about["device"])
            peak = matrix_peak(options.matrix, device, _DTYPES[about["precision"]])
        work = forward_operations(options, request)
        rows.append(
            {"preset": preset, **measure(engine, request, work, peak, rounds=options.rounds)}
        )
    conditions = (
        f"{card.name}, {options.steps} steps of euler, CFG {options.cfg_scale:g}, "
        f"{about['precision']} on {about['device_name']}, {about['threads']} threads, "
        f"matrix peak {peak / 1e12:.3f} TFLOP/s, median of {options.rounds}"
    )
    print_report(conditions, rows, command="engine", json_path=options.json)


def matrix_peak(side: int, device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest of eight products of square matrices."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        (a @ b).sum().item()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def forward_operations(options: argparse.Namespace, request: ResolvedRequest) -> float:
    """Operations of the forward of a guidance pair at the request's size."""
    card = load_card(options.card)
    sizes = transformer_sizes(card, options.checkpoint_dir)
    scale = card.vae.scale_factor
    shape = (1, sizes.latent_channels, 1, request.height // scale, request.width // scale)
    tokens = min(77, card.text.context_rows)
    return 1e12 * float(count_ours(card, sizes, shape, tokens)["TFLOP"])


def measure(
    engine: Engine, request: ResolvedRequest, work: float, peak: float, *, rounds: int
) -> dict[str, Any]:
    """Milliseconds of a forward and of a step, seconds of a picture, share of the peak."""
    forwards, pictures, steps = [], [], []
    for number in range(rounds + 1):
        before = engine.stats.forward_seconds, engine.stats.forwards
        began = time.perf_counter()
        run_engine(engine, [request])
        seconds = time.perf_counter() - began
        if number:  # the first warms up
            count = engine.stats.forwards - before[1]
            forwards.append((engine.stats.forward_seconds - before[0]) / count)
            pictures.append(seconds)
            steps.append(seconds / count)
    forward = statistics.median(forwards)
    return {
        "size": f"{request.width}x{request.height}",
        "forward ms": 1000 * forward,
        "picture per step ms": 1000 * statistics.median(steps),
        "picture s": statistics.median(pictures),
        "share of the peak": f"{work / forward / peak:.0%}",
    }


if __name__ == "__main__":
    main()

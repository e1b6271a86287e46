"""Trains `kirazuri-tiny` from scratch: `python -m training`.

The stages run in the order of `stages`. Finished stages are skipped; interrupted stages resume.
"""

import argparse
import json
import logging
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from training import export
from training.pictures import dataset as data
from training.pictures.avatars import sample_avatar
from training.pictures.captions import caption
from training.pictures.tokenizers import qwen_tokenizer, save_tokenizers, t5_tokenizer
from training.train import dit, vae

log = logging.getLogger("training")

CAPTIONS_FOR_TOKENIZER = 6000


def main() -> None:
    """Run all stages that are not finished."""
    options = _parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {name: str(value) for name, value in vars(options).items()} | versions()
    (options.out / "settings.json").write_text(json.dumps(facts, indent=1) + "\n")
    for name, run in stages(options).items():
        mark = options.out / f"{name}.done"
        if mark.exists():
            log.info("%s: done before", name)
            continue
        start = time.monotonic()
        run()
        seconds = time.monotonic() - start
        mark.write_text(f"{seconds:.1f} s, finished {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n")
        log.info("%s: %.1f s", name, seconds)


def stages(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """The stages in order."""
    drawn: Path = options.out / "data"
    out: Path = options.out
    shared = {"seed": options.seed, "processes": options.processes}
    crops, whole = 2 / 3 * options.minutes_vae, 1 / 3 * options.minutes_vae
    return {
        "render": lambda: data.draw_pictures(drawn, options.pictures, **shared),
        "tokenizers": lambda: make_tokenizers(out, seed=options.seed),
        "vae-crops": lambda: vae.train_on_crops(drawn, out, minutes=crops, **shared),
        "vae": lambda: vae.train_on_pictures(drawn, out, minutes=whole, **shared),
        "encode": lambda: vae.encode_pictures(drawn, out, processes=options.processes),
        "dit": lambda: dit.train(drawn, out, minutes=options.minutes_dit, **shared),
        "redraw": lambda: dit.redraw(drawn, out, **shared),
        "decoder": lambda: vae.tune_decoder(drawn, out, minutes=options.minutes_decoder, **shared),
        "export": lambda: export.export(drawn, out, options.checkpoint),
    }


def make_tokenizers(out: Path, *, seed: int) -> None:
    """Learn Qwen's merges from captions of unseen avatars; build T5 from a fixed word list."""
    rng = np.random.default_rng((seed, 5))
    texts = [caption(sample_avatar(rng), rng) for _ in range(CAPTIONS_FOR_TOKENIZER)]
    save_tokenizers(out / "tokenizers", qwen_tokenizer(texts), t5_tokenizer())


def versions() -> dict[str, str]:
    """Versions of the libraries, for the log."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "machine": platform.processor() or platform.machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/training"), help="the run's folder")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("out/training/kirazuri-tiny"),
        help="folder of the exported checkpoint",
    )
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--minutes-vae", type=float, default=30)
    parser.add_argument("--minutes-dit", type=float, default=46)
    parser.add_argument("--minutes-decoder", type=float, default=10)
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()

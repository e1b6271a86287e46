"""Compares the qualities of requests with fewer steps at the same cost, on unseen prompts.

The cost counts evaluations of the model. Each way is compared with the exact pictures of the same
seeds: by PSNR, and by the attributes that they show.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.card import Card, load_card
from model.engine.loading import load_engine
from model.resolved_request import ResolvedRequest
from model.sampler_catalog import Quality, evaluations
from model.workload import sampling_passes
from training.evaluation.evaluate import Setting, generate, request, unseen_avatars, verdicts
from training.evaluation.probe import Probe, load_probe
from training.pictures import captions
from training.pictures.avatars import Avatar

Numbers = NDArray[np.float64]
Generate = Callable[[list[ResolvedRequest]], list[Image.Image]]

MOST_DECIBELS = 99.0
"""PSNR of a picture that is the same to the last bit."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make the pictures, and what it costs: evaluations of one picture."""

    setting: Setting
    evaluations: int

    @property
    def name(self) -> str:
        """How a table calls it."""
        return (
            f"{self.setting.steps} steps"
            if self.setting.quality == "exact"
            else self.setting.quality
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Pictures of one way: each array has a number per picture, `by_attribute` shares."""

    psnr: Numbers
    right: Numbers
    by_attribute: dict[str, float]


def ways(card: Card, sampler: str) -> list[Way]:
    """Exact with the card's steps; each quality, followed by fewer steps at its cost."""
    plain = Setting(
        card.defaults.resolution,
        sampler,
        card.samplers[sampler].default_steps,
        card.defaults.cfg_scale,
    )
    found = [_way(card, plain)]
    for quality, advice in card.qualities.items():
        if sampler in advice.samplers:
            lossy = _way(card, plain, quality=quality)
            found += [lossy, _way(card, plain, steps=steps_at(card, sampler, lossy.evaluations))]
    return found


def steps_at(card: Card, sampler: str, cost: int) -> int:
    """The fewest steps that take at least so many evaluations."""
    steps = 1
    while evaluations(sampler, card.defaults.scheduler, steps) < cost:
        steps += 1
    return steps


def _way(
    card: Card, plain: Setting, *, steps: int | None = None, quality: Quality = "exact"
) -> Way:
    setting = Setting(plain.preset, plain.sampler, steps or plain.steps, plain.cfg_scale, quality)
    (only,) = sampling_passes(request(card, "1girl", setting=setting, seed=0))
    return Way(setting, only.evaluations)


def measure(
    avatars: Sequence[Avatar],
    images: Sequence[Image.Image],
    exact: Sequence[Image.Image],
    probe: Probe,
) -> Measured:
    """Compare pictures with the exact ones of the same seeds, and with what was asked for."""
    found = verdicts(avatars, images, probe)
    return Measured(
        np.array([decibels(one, other) for one, other in zip(images, exact, strict=True)]),
        np.nanmean(np.stack(list(found.values())), axis=0),
        {name: float(np.nanmean(of_pictures)) for name, of_pictures in found.items()},
    )


def decibels(image: Image.Image, exact: Image.Image) -> float:
    """PSNR over all channels of 8 bits, at most MOST_DECIBELS."""
    difference = np.asarray(image, np.float64) - np.asarray(exact, np.float64)
    least = 255**2 / 10 ** (MOST_DECIBELS / 10)
    return float(10 * np.log10(255**2 / max(float((difference**2).mean()), least)))


def mean_and_error(numbers: Numbers) -> tuple[float, float]:
    """The mean and its standard error; pictures are independent, attributes of one are not."""
    return float(numbers.mean()), float(numbers.std(ddof=1) / len(numbers) ** 0.5)


def compare(
    card: Card, sampler: str, avatars: Sequence[Avatar], *, make: Generate, probe: Probe
) -> Iterator[dict[str, Any]]:
    """One row per way. `gain` is what a quality has beyond the fewer steps that follow it.

    Differences are between pictures of the same seed, so their errors are smaller than those of
    the means.
    """
    exact: list[Image.Image] = []
    reference = lossy = None
    for way in ways(card, sampler):
        images = make(
            [
                request(card, captions.prompt(avatar), setting=way.setting, seed=seed)
                for seed, avatar in enumerate(avatars)
            ]
        )
        exact = exact or images
        found = measure(avatars, images, exact, probe)
        reference = reference or found
        row = {
            "sampler": sampler,
            "way": way.name,
            "evaluations": way.evaluations,
            "psnr": mean_and_error(found.psnr),
            "psnr_tenth_percentile": float(np.percentile(found.psnr, 10)),
            "right": mean_and_error(found.right),
            "all_right": float((found.right == 1).mean()),
            "beyond_exact": mean_and_error(found.right - reference.right),
            "by_attribute": found.by_attribute,
        }
        if lossy:
            row["gain"] = {
                "psnr": mean_and_error(lossy.psnr - found.psnr),
                "right": mean_and_error(lossy.right - found.right),
            }
        lossy = found if way.setting.quality != "exact" else None
        yield row


def _line(row: dict[str, Any]) -> str:
    def both(numbers: tuple[float, float], digits: int) -> str:
        return f"{numbers[0]:.{digits}f} ± {numbers[1]:.{digits}f}"

    cells = [
        row["sampler"],
        row["way"],
        str(row["evaluations"]),
        f"{both(row['psnr'], 1)}; {row['psnr_tenth_percentile']:.1f}",
        both(row["right"], 4),
        both(row["beyond_exact"], 4),
        f"{row['all_right']:.3f}",
        both(row["gain"]["psnr"], 1) if "gain" in row else "",
        both(row["gain"]["right"], 4) if "gain" in row else "",
        " ".join(f"{share:.3f}" for share in row["by_attribute"].values()),
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table row per sampler and way."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.qualities", description=__doc__
    )
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--samplers", nargs="+", help="default: all that the qualities name")
    parser.add_argument("--out", type=Path, help="write all numbers to this JSON file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    card = load_card("kirazuri-tiny")
    engine = load_engine(
        card, None, device="cpu", precision="float32", threads=1, token_budget=4096
    )
    probe = load_probe(Path("out"))
    offered = dict.fromkeys(name for one in card.qualities.values() for name in one.samplers)
    avatars, rows = unseen_avatars(options.prompts), []
    for sampler in options.samplers or offered:
        for row in compare(card, sampler, avatars, make=partial(generate, engine), probe=probe):
            rows.append(row)
            print(_line(row), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"prompts": options.prompts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

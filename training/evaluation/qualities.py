"""Compares the qualities of requests with fewer steps at the same cost, on unseen prompts.

The cost counts evaluations of the model; one in float8 costs less, as counted at 1024x1024 on the
published sizes. Each way is compared with the exact pictures of the same seeds: by PSNR, and by the
attributes that they show.
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

from model.bench.counts import PUBLISHED, float8_cost
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
Generate = Callable[[list[ResolvedRequest], bool], list[Image.Image]]
"""Makes the pictures of requests, exactly or in float8."""

MOST_DECIBELS = 99.0
"""PSNR of a picture that is the same to the last bit."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make the pictures, perhaps in float8. `cost` counts evaluations of one picture."""

    setting: Setting
    cost: float
    float8: bool = False

    @property
    def name(self) -> str:
        """How a table calls it."""
        if self.float8:
            return f"{self.setting.quality}, float8"
        is_exact = self.setting.quality == "exact"
        return f"{self.setting.steps} steps" if is_exact else self.setting.quality

    @property
    def is_lossy(self) -> bool:
        """Whether it gives the exact pictures of fewer or as many steps."""
        return self.float8 or self.setting.quality != "exact"


@dataclass(frozen=True, slots=True)
class Measured:
    """Pictures of one way: each array has a number per picture, `by_attribute` shares."""

    psnr: Numbers
    right: Numbers
    by_attribute: dict[str, float]


def ways(card: Card, sampler: str, float8_cost: float | None = None) -> list[Way]:
    """Exact with the card's steps; each quality, followed by fewer steps at its cost.

    `float8_cost` is that of a forward in float8, of an exact one; then all are also made so.
    """
    steps = card.samplers[sampler].default_steps
    offered = [name for name, one in card.qualities.items() if sampler in one.samplers]
    exact = _way(card, sampler, steps)
    found = [exact]
    for quality in offered:
        lossy = _way(card, sampler, steps, quality)
        found += [lossy, _way(card, sampler, steps_at(card, sampler, lossy.cost))]
    if float8_cost is not None:
        for one in [exact, *(_way(card, sampler, steps, quality) for quality in offered)]:
            cost = float8_cost * one.cost
            found.append(Way(one.setting, cost, float8=True))
            found.append(_way(card, sampler, steps_at(card, sampler, cost)))
    return found


def steps_at(card: Card, sampler: str, cost: float) -> int:
    """The fewest steps that take at least so many evaluations."""
    steps = 1
    while evaluations(sampler, card.defaults.scheduler, steps) < cost:
        steps += 1
    return steps


def _way(card: Card, sampler: str, steps: int, quality: Quality = "exact") -> Way:
    defaults = card.defaults
    setting = Setting(defaults.resolution, sampler, steps, defaults.cfg_scale, quality)
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
    card: Card,
    sampler: str,
    avatars: Sequence[Avatar],
    *,
    make: Generate,
    probe: Probe,
    float8_cost: float | None = None,
) -> Iterator[dict[str, Any]]:
    """One row per way. `gain` is what a quality has beyond the fewer steps that follow it.

    Differences are between pictures of the same seed, so their errors are smaller than those of
    the means.
    """
    exact: list[Image.Image] = []
    reference = lossy = None
    for way in ways(card, sampler, float8_cost):
        asked = [
            request(card, captions.prompt(avatar), setting=way.setting, seed=seed)
            for seed, avatar in enumerate(avatars)
        ]
        images = make(asked, way.float8)
        exact = exact or images
        found = measure(avatars, images, exact, probe)
        reference = reference or found
        row = {
            "sampler": sampler,
            "way": way.name,
            "cost": way.cost,
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
        lossy = found if way.is_lossy else None
        yield row


def _line(row: dict[str, Any]) -> str:
    def both(numbers: tuple[float, float], digits: int) -> str:
        return f"{numbers[0]:.{digits}f} ± {numbers[1]:.{digits}f}"

    cells = [
        row["sampler"],
        row["way"],
        f"{row['cost']:.3g}",
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
    parser.add_argument("--float8", action="store_true", help="also in float8")
    parser.add_argument("--out", type=Path, help="write all numbers to this JSON file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    card = load_card("kirazuri-tiny")
    load = partial(
        load_engine, card, None, device="cpu", precision="float32", threads=1, token_budget=4096
    )
    engines = {False: load()}
    cost = None
    if options.float8:
        engines[True] = load(takes_float8=lambda request: True)
        cost = float8_cost(load_card("kirazuri-v1"), PUBLISHED, (1, 16, 1, 128, 128), 77)
        print(f"a forward in float8 costs {cost:.3f}", flush=True)

    def make(requests: list[ResolvedRequest], float8: bool) -> list[Image.Image]:
        return generate(engines[float8], requests)

    probe = load_probe(Path("out"))
    offered = dict.fromkeys(name for one in card.qualities.values() for name in one.samplers)
    avatars, rows = unseen_avatars(options.prompts), []
    for sampler in options.samplers or offered:
        found = compare(card, sampler, avatars, make=make, probe=probe, float8_cost=cost)
        for row in found:
            rows.append(row)
            print(_line(row), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"prompts": options.prompts, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

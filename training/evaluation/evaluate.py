"""Measures a checkpoint: generates pictures for unseen prompts and reads their attributes.

`rules` reads the colours of hair, background and clothes; `probe` reads everything else. The
pictures come from the engine that also serves requests.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.card import Card, load_card
from model.engine.loading import load_engine
from model.engine.protocol import Failed, GenerationEngine, ImageReady
from model.request import GenerationRequest
from model.resolved_request import ResolvedRequest, resolve_request
from model.sampler_catalog import Quality
from training.evaluation.probe import Probe, load_probe, read
from training.evaluation.rules import read_colors
from training.pictures import captions
from training.pictures.avatars import Avatar, sample_avatar
from training.pictures.drawing import draw

logger = logging.getLogger(__name__)

UNSEEN_SEED = 0x5EED_E7A1  # used by no training stage
RULED = {"hair": "hair_color", "background": "background", "clothes": "outfit_color"}
PROBED = {
    "eyes": "eye_color",
    "style": "hair_style",
    "lids": "eyes",
    "ornament": "ornament",
    "expression": "expression",
    "glasses": "glasses",
    "blush": "blush",
    "subject": "subject",
    "outfit": "outfit",
    "quality": "quality",
}
BARS = {
    "hair": 0.98,
    "background": 0.98,
    "clothes": 0.98,
    "eyes": 0.95,
    "style": 0.95,
    "ornament": 0.90,
    "expression": 0.80,
}
SHARPNESS_BAR = 1.2  # good divided by poor; 1.5 for drawn pictures
SATURATION_BAR = 1.1  # with a negative prompt, divided by that of drawn pictures or without one
CLIPPING_BAR = 0.1  # more channel values than without one
SAMPLER_BARS = {"hair": 0.95, "background": 0.95}

Generate = Callable[[list[ResolvedRequest]], list[Image.Image]]


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings of one table row; `steps` None means the sampler's default."""

    preset: str
    sampler: str
    steps: int | None
    cfg_scale: float
    quality: Quality = "exact"


def unseen_avatars(count: int) -> list[Avatar]:
    """Avatars of best quality from a seed that training does not use."""
    rng = np.random.default_rng(UNSEEN_SEED)
    return [replace(sample_avatar(rng), quality="best") for _ in range(count)]


def request(
    card: Card, prompt: str, *, setting: Setting, seed: int, negative: str | None = None
) -> ResolvedRequest:
    """A request as a client sends it; `negative` None means the card's default."""
    asked = GenerationRequest(
        prompt=prompt,
        negative_prompt=negative,
        resolution=setting.preset,
        steps=setting.steps,
        cfg_scale=setting.cfg_scale,
        sampler=setting.sampler,
        quality=setting.quality,
    )
    return resolve_request(asked, card, seed=seed)


def generate(engine: GenerationEngine, requests: Sequence[ResolvedRequest]) -> list[Image.Image]:
    """Run all requests through the engine, many at once.

    Raises:
        RuntimeError: a request failed; the message is the engine's.
    """
    images: dict[int, Image.Image] = {}
    for start in range(0, len(requests), 64):
        chunk = list(enumerate(requests))[start : start + 64]
        for index, asked in chunk:
            engine.admit(str(index), asked)
        while len(images) < start + len(chunk):
            for event in engine.step():
                match event:
                    case Failed(job_id, _, detail):
                        raise RuntimeError(f"request {job_id}: {detail}")
                    case ImageReady(job_id, _, _, pixels):
                        images[int(job_id)] = Image.fromarray(pixels)
    return [images[index] for index in range(len(requests))]


def judge(
    avatars: Sequence[Avatar], images: Sequence[Image.Image], probe: Probe
) -> dict[str, float]:
    """Share of pictures that show the requested value, by attribute."""
    found = verdicts(avatars, images, probe)
    return {name: float(np.nanmean(of_pictures)) for name, of_pictures in found.items()}


def verdicts(
    avatars: Sequence[Avatar], images: Sequence[Image.Image], probe: Probe
) -> dict[str, NDArray[np.float64]]:
    """For each attribute a number per picture: 1 right, 0 wrong, NaN if it cannot be seen."""
    colors = [read_colors(image) for image in images]
    answers = read(probe, images)
    found = {name: _verdicts(avatars, colors, field) for name, field in RULED.items()}
    return found | {name: _verdicts(avatars, answers, field) for name, field in PROBED.items()}


def _verdicts(avatars: Sequence[Avatar], answers: Sequence[Any], field: str) -> NDArray[np.float64]:
    return np.array(
        [
            np.nan
            if field == "eye_color" and avatar.eyes == "closed eyes"
            else float(getattr(avatar, field) == answer[field])
            for avatar, answer in zip(avatars, answers, strict=True)
        ]
    )


def compare_quality(
    card: Card, avatars: Sequence[Avatar], *, setting: Setting, make: Generate, probe: Probe
) -> dict[str, float]:
    """Compare `very aesthetic` with `low quality`, seed by seed.

    `difference` is the mean absolute change of a channel in 0..255, `sharpness_ratio` the mean
    gradient of the good pictures divided by that of the poor ones.
    """
    made = {}
    for words in (
        "masterpiece, best quality, very aesthetic",
        "low quality, worst quality, blurry",
    ):
        prompts = [f"{words}, {', '.join(captions.tags(avatar))}" for avatar in avatars]
        made[words] = make(
            [
                request(card, prompt, setting=setting, seed=seed, negative="")
                for seed, prompt in enumerate(prompts)
            ]
        )
    good, poor = made.values()
    good_pixels, poor_pixels = (
        np.stack([np.asarray(i, np.float64) for i in x]) for x in (good, poor)
    )
    read_good = [answer["quality"] == "best" for answer in read(probe, good)]
    read_poor = [answer["quality"] == "low quality" for answer in read(probe, poor)]
    return {
        "difference": float(np.abs(good_pixels - poor_pixels).mean()),
        "sharpness_ratio": _gradient(good_pixels) / _gradient(poor_pixels),
        "read_as_best": float(np.mean(read_good)),
        "read_as_low": float(np.mean(read_poor)),
    }


def _gradient(pixels: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(np.abs(np.diff(pixels, axis=2)).mean() + np.abs(np.diff(pixels, axis=1)).mean())


def check_burning(
    card: Card, avatars: Sequence[Avatar], *, setting: Setting, make: Generate
) -> dict[str, dict[str, float]]:
    """Saturation and clipping of drawn pictures, and with and without a negative prompt."""
    measured = {}
    for name, negative in (("without", ""), ("with", "low quality, worst quality, blurry")):
        requests = [
            request(card, captions.prompt(avatar), setting=setting, seed=seed, negative=negative)
            for seed, avatar in enumerate(avatars)
        ]
        measured[name] = _exposure(make(requests))
    rng, (width, height) = np.random.default_rng(0), (requests[0].width, requests[0].height)
    measured["drawn"] = _exposure([draw(avatar, width, height, rng) for avatar in avatars])
    return measured


def _exposure(images: Sequence[Image.Image]) -> dict[str, float]:
    """Mean saturation, and the share of channel values at either end of the range."""
    pixels = np.stack([np.asarray(image) for image in images])
    saturation = np.stack([np.asarray(image.convert("HSV"))[..., 1] for image in images])
    clipped = (pixels <= 1) | (pixels >= 254)
    return {"saturation": float(saturation.mean() / 255), "clipped": float(clipped.mean())}


def quality_shortfalls(
    quality: dict[str, float], burning: dict[str, dict[str, float]]
) -> list[str]:
    """Descriptions of the quality measures that miss their bars."""
    missed = []
    if quality["sharpness_ratio"] < SHARPNESS_BAR:
        missed.append(
            f"quality: sharpness ratio {quality['sharpness_ratio']:.2f} < {SHARPNESS_BAR}"
        )
    usual = max(burning["without"]["saturation"], burning["drawn"]["saturation"])
    saturation = burning["with"]["saturation"] / usual
    if saturation > SATURATION_BAR:
        missed.append(f"burning: saturation grows {saturation:.2f} times > {SATURATION_BAR}")
    clipping = burning["with"]["clipped"] - burning["without"]["clipped"]
    if clipping > CLIPPING_BAR:
        missed.append(f"burning: clipped share grows by {clipping:.2f} > {CLIPPING_BAR}")
    return missed


def arrange_in_rows(images: Sequence[Image.Image], columns: int = 8) -> Image.Image:
    """Arrange pictures of one size in rows."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


def measure(
    card: Card,
    avatars: Sequence[Avatar],
    *,
    setting: Setting,
    make: Generate,
    probe: Probe,
    sheets: Path,
) -> dict[str, Any]:
    """Measure one table row; saves the first pictures as a contact sheet."""
    asked = [
        request(card, captions.prompt(avatar), setting=setting, seed=seed)
        for seed, avatar in enumerate(avatars)
    ]
    started = time.perf_counter()
    images = make(asked)
    seconds = (time.perf_counter() - started) / len(images)
    sheet = sheets / f"{card.name}-{setting.preset}-{setting.sampler}.png"
    arrange_in_rows(images[:32]).save(sheet)
    first = asked[0]
    return {
        "preset": setting.preset,
        "size": f"{first.width}x{first.height}",
        "sampler": first.sampler,
        "steps": first.steps,
        "cfg_scale": first.cfg_scale,
        "prompts": len(asked),
        "seconds_per_image": round(seconds, 3),
        "accuracy": {n: round(x, 4) for n, x in judge(avatars, images, probe).items()},
    }


def shortfalls(row: dict[str, Any], *, default_sampler: str) -> list[str]:
    """Descriptions of values below the bar, which is lower for samplers other than the default."""
    bars = BARS if row["sampler"] == default_sampler else SAMPLER_BARS
    label = f"{row['preset']}/{row['sampler']}"
    return [
        f"{label}: {name} {row['accuracy'][name]:.3f} < {bar}"
        for name, bar in bars.items()
        if row["accuracy"][name] < bar
    ]


def _settings(card: Card, options: argparse.Namespace) -> list[Setting]:
    presets = options.presets or [preset.name for preset in card.resolutions]
    samplers = options.samplers or [card.defaults.sampler]
    if samplers == ["all"]:
        samplers = list(card.samplers)
    cfg_scale = options.cfg_scale or card.defaults.cfg_scale
    return [
        Setting(preset, sampler, options.steps, cfg_scale)
        for preset in presets
        for sampler in samplers
    ]


def _print_row(row: dict[str, Any]) -> None:
    numbers = " | ".join(f"{share:.3f}" for share in row["accuracy"].values())
    how = (
        f"{row['preset']} {row['size']} | {row['sampler']} {row['steps']} cfg {row['cfg_scale']:g}"
    )
    print(f"| {how} | {numbers} | {row['seconds_per_image']:.2f} s |", flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.evaluate", description=__doc__
    )
    parser.add_argument("--checkpoint", default="kirazuri-tiny", help="card name or .toml path")
    parser.add_argument("--checkpoint-dir", type=Path, help="folder of the weights")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--presets", nargs="+", help="default: every preset of the card")
    parser.add_argument("--samplers", nargs="+", help='default: the card\'s; "all" for each')
    parser.add_argument("--steps", type=int, help="default: the card's for each sampler")
    parser.add_argument("--cfg-scale", type=float, help="default: the card's")
    parser.add_argument("--skip-quality", action="store_true", help="leave the quality words out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheets", type=Path, default=Path("out"), help="folder of the sheets")
    parser.add_argument("--out", type=Path, help="write all numbers to this JSON file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table row per preset and sampler; 1 if a bar is missed, else 0."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    card = load_card(options.checkpoint)
    options.sheets.mkdir(parents=True, exist_ok=True)
    engine = load_engine(
        card,
        options.checkpoint_dir,
        device="cpu",
        precision="float32",
        threads=options.threads,
        token_budget=4096,
    )
    probe = load_probe(Path("out"))

    def make(requests: list[ResolvedRequest]) -> list[Image.Image]:
        return generate(engine, requests)

    avatars = unseen_avatars(options.prompts)
    print("| picture | sampler | " + " | ".join([*RULED, *PROBED]) + " | time |")
    rows = []
    for setting in _settings(card, options):
        rows.append(
            measure(card, avatars, setting=setting, make=make, probe=probe, sheets=options.sheets)
        )
        _print_row(rows[-1])
    report: dict[str, Any] = {"engine": engine.description(), "rows": rows}
    missed = [m for row in rows for m in shortfalls(row, default_sampler=card.defaults.sampler)]
    if not options.skip_quality:
        setting, few = _settings(card, options)[0], avatars[:64]
        quality = compare_quality(card, few, setting=setting, make=make, probe=probe)
        burning = check_burning(card, few, setting=setting, make=make)
        print(json.dumps({"quality": quality, "burning": burning}, indent=1))
        report |= {"quality": quality, "burning": burning}
        missed += quality_shortfalls(quality, burning)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(missed) or "every bar is reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

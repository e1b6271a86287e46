"""Image-to-image, inpainting and second passes through the engine."""

import inspect
from itertools import product
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from model.card import load_card
from model.engine.engine import Engine
from model.engine.images.pixels import Pixels, resize, resize_mask
from model.engine.loading import load_engine
from model.engine.pipeline import Pipeline
from model.engine.protocol import Failed, Finished, ImageReady, Preview, Started, StepDone
from model.errors import InputMissing
from model.network.text.encoder import EncodedPrompt
from model.resolved_request import ResolvedHires, ResolvedRequest
from model.sampler_catalog import SAMPLER_CATALOG
from model.sampling.schedules import sigmas_simple
from tests.support.engines import drain, of, run
from tests.support.requests import request as bare
from tests.support.velocities import by_rows, read_context

SIDE = 32


class Studio:
    """An exact model whose latents are pixels: three channels, one latent per pixel, lossless."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], float]] = []
        self.shown: list[Tensor] = []
        self.pictures: dict[str, Pixels] = {}
        self.is_broken = False

    def engine(self, token_budget: int = 100_000) -> Engine:
        pipeline = Pipeline(
            self.encode,
            read_context,
            by_rows(self.velocity),
            self.decode,
            lambda latents: self.decode(latents)[0],
            encode_image=self.encode_image,
            read_image=self.read,
            latent_channels=3,
            scale_factor=1,
        )
        return Engine(pipeline, token_budget=token_budget)

    def encode(self, text: str) -> EncodedPrompt:
        context = torch.full((4, 2), float(len(text)) / 20 - 0.5)
        return EncodedPrompt(
            context, tokens=4, qwen_count=1, t5_count=1, max_tokens=9, is_cut=False
        )

    def velocity(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        self.shown.append(x)
        self.calls += [(tuple(row.shape[-2:]), float(s)) for row, s in zip(x, sigma, strict=True)]
        mean, s = context[:, 0, 0].view(-1, 1, 1, 1, 1), sigma.view(-1, 1, 1, 1, 1)
        a = 1 - s
        denoised = mean + a * 0.04 / ((a * 0.2) ** 2 + s**2) * (x - a * mean)
        return (x - denoised) / s

    def decode(self, latents: Tensor) -> Pixels:
        levels = (latents[:, :, 0].clamp(-1, 1) + 1) * 127.5
        pixels: Pixels = levels.round().to(torch.uint8).movedim(1, -1).numpy()
        return pixels

    def encode_image(self, pixels: Tensor) -> Tensor:
        return pixels * torch.nan if self.is_broken else pixels

    def read(self, name: str) -> Pixels:
        if name not in self.pictures:
            raise InputMissing(f"there is no image {name}")
        return self.pictures[name]


@pytest.fixture
def studio() -> Studio:
    made = Studio()
    random = numpy.random.default_rng(5)
    made.pictures["photo"] = random.integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)
    mask = numpy.zeros((SIDE, SIDE, 3), numpy.uint8)
    mask[:, : SIDE // 2] = 255
    made.pictures["left"] = mask
    made.pictures["grey"] = numpy.full_like(mask, 100)
    return made


def request(**fields: Any) -> ResolvedRequest:
    return bare(**{"width": SIDE, "height": SIDE, "steps": 6, **fields})


def hires(scale: float = 1.5, **fields: Any) -> ResolvedHires:
    side = int(SIDE * scale)
    base: dict[str, Any] = {"steps": 4, "strength": 0.5, "upscaler": "lanczos"}
    return ResolvedHires(scale=scale, width=side, height=side, **{**base, **fields})


def picture(studio: Studio, wanted: ResolvedRequest) -> Pixels:
    (image,) = of(ImageReady, run(studio.engine(), {"job": wanted}), "job")
    pixels: Pixels = image.pixels
    return pixels


def distance(one: Pixels, other: Pixels) -> float:
    return float(numpy.abs(one.astype(float) - other).mean())


# -- image to image ---------------------------------------------------------------------------


def test_full_strength_equals_text_to_image(studio: Studio) -> None:
    plain = picture(studio, request(sampler="euler"))
    full = picture(studio, request(sampler="euler", init_image="photo", strength=1.0))
    assert (plain == full).all()


def test_a_lower_strength_stays_closer_to_the_image(studio: Studio) -> None:
    photo = studio.pictures["photo"]
    near = [
        distance(picture(studio, request(init_image="photo", strength=strength)), photo)
        for strength in (0.0, 0.01, 0.1, 0.3, 0.6, 1.0)
    ]
    assert near[0] == 0
    assert near == sorted(near)
    assert near[1] < 5
    assert near[-1] > 20


def test_all_steps_run_on_the_tail_of_a_longer_schedule(studio: Studio) -> None:
    picture(studio, request(init_image="photo", strength=0.6))
    sigmas = [sigma for _, sigma in studio.calls]
    assert sigmas == sigmas_simple(10)[-7:-1].tolist()


def test_strength_zero_evaluates_no_model(studio: Studio) -> None:
    wanted = request(init_image="photo", strength=0.0, num_images=2)
    events = run(studio.engine(), {"job": wanted})
    assert studio.calls == []
    assert [type(event) for event in events] == [
        Started, ImageReady, ImageReady, StepDone, Finished,
    ]  # fmt: skip
    (progress,) = of(StepDone, events, "job")
    assert (progress.step, progress.steps) == (1, 1)
    assert of(Finished, events, "job")[0].denoise_seconds == 0


@pytest.mark.parametrize("name", ["gone", "small"])
def test_a_missing_image_fails_only_its_request(studio: Studio, name: str) -> None:
    studio.pictures["small"] = numpy.zeros((8, 8, 3), numpy.uint8)
    jobs = {
        "start": request(init_image=name, strength=0.5),
        "mask": request(init_image="photo", strength=0.5, mask=name),
        "good": request(init_image="photo", strength=0.5),
    }
    events = run(studio.engine(), jobs)
    for job_id in ("start", "mask"):
        (failed,) = of(Failed, events, job_id)
        assert (failed.code, failed.is_retryable) == ("input_missing", False)
        assert name in failed.detail
    assert of(Finished, events, "good")


def test_nan_from_the_encoder_is_an_error(studio: Studio) -> None:
    studio.is_broken = True
    (failed,) = of(
        Failed, run(studio.engine(), {"a": request(init_image="photo", strength=0.5)}), "a"
    )
    assert failed.code == "non_finite"


def test_an_engine_without_an_image_store_fails_the_request(studio: Studio) -> None:
    engine = Engine(
        Pipeline(
            studio.encode,
            read_context,
            by_rows(studio.velocity),
            studio.decode,
            lambda z: studio.decode(z)[0],
        ),
        token_budget=100,
    )
    (failed,) = of(Failed, run(engine, {"a": request(init_image="photo", strength=0.5)}), "a")
    assert failed.code == "input_missing"


# -- inpainting --------------------------------------------------------------------------------


def test_no_sampler_changes_pixels_outside_the_mask(studio: Studio) -> None:
    photo, half = studio.pictures["photo"], SIDE // 2
    for sampler, strength in product(SAMPLER_CATALOG, (0.4, 1.0)):
        wanted = request(
            sampler=sampler, init_image="photo", mask="left", strength=strength, num_images=2
        )
        images = of(ImageReady, run(studio.engine(), {"job": wanted}), "job")
        assert len(images) == 2, (sampler, strength)
        for image in images:
            assert (image.pixels[:, half:] == photo[:, half:]).all(), (sampler, strength)
            assert distance(image.pixels[:, :half], photo[:, :half]) > 5, (sampler, strength)
        assert (images[0].pixels != images[1].pixels).any(), (sampler, strength)


def test_a_grey_mask_mixes(studio: Studio) -> None:
    photo = studio.pictures["photo"]
    distances = [
        distance(
            picture(studio, request(init_image="photo", mask=mask, strength=1.0)), photo
        )
        for mask in ("grey", None)
    ]  # fmt: skip
    assert 1 < distances[0] < 0.6 * distances[1]


def test_the_model_sees_the_image_around_the_mask(studio: Studio) -> None:
    """So the new part can match: at low noise levels the original is almost free of noise."""
    picture(studio, request(init_image="photo", mask="left", strength=0.1, sampler="er_sde"))
    seen = studio.decode(studio.shown[-1])[0]
    half = SIDE // 2
    assert distance(seen[:, half:], studio.pictures["photo"][:, half:]) < 8


# -- second passes -----------------------------------------------------------------------------


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_a_second_pass_makes_images_of_its_size(studio: Studio, upscaler: str) -> None:
    wanted = request(hires=hires(upscaler=upscaler), num_images=2, sampler="heun", previews=True)
    events = run(studio.engine(), {"job": wanted})
    assert {image.pixels.shape for image in of(ImageReady, events, "job")} == {(48, 48, 3)}
    assert [shape for shape, _ in studio.calls].count((SIDE, SIDE)) == 2 * 11
    assert [shape for shape, _ in studio.calls].count((48, 48)) == 2 * 7
    steps = [event.step for event in of(StepDone, events, "job")]
    assert steps == sorted(steps)
    assert {event.steps for event in of(StepDone, events, "job")} == {10}
    assert steps[-1] == 10
    assert {event.pixels.shape for event in of(Preview, events, "job")} == {
        (SIDE, SIDE, 3), (48, 48, 3),
    }  # fmt: skip


def test_a_second_pass_of_strength_zero_only_upscales(studio: Studio) -> None:
    first = picture(studio, request())
    enlarged = picture(studio, request(hires=hires(strength=0.0)))
    assert (enlarged == resize(first, 48, 48)).all()
    alone = picture(studio, request(init_image="photo", strength=0.0, hires=hires(strength=0.0)))
    assert (alone == resize(studio.pictures["photo"], 48, 48)).all()


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_a_mask_applies_to_the_second_pass(studio: Studio, upscaler: str) -> None:
    """The upscaled image is kept outside the upscaled mask."""
    wanted = request(
        init_image="photo", strength=0.8, mask="left", hires=hires(upscaler=upscaler)
    )  # fmt: skip
    image = picture(studio, wanted)
    large = resize(studio.pictures["photo"], 48, 48)
    kept = resize_mask(studio.pictures["left"][..., 0], 48, 48) == 0
    assert 0.4 < kept.mean() < 0.6
    assert (image[kept] == large[kept]).all()
    assert distance(image[~kept], large[~kept]) > 5


def mixed() -> dict[str, ResolvedRequest]:
    start: dict[str, Any] = {"init_image": "photo", "strength": 0.7}
    return {
        "plain": request(seed=1),
        "start": request(seed=2, prompt="red hair", **start),
        "again": request(seed=2, prompt="red hair", **start),
        "mask": request(seed=3, sampler="er_sde", mask="left", **start),
        "hires": request(seed=4, hires=hires(), sampler="sa_solver_pece", cfg_scale=3.0),
        "latent": request(seed=5, hires=hires(upscaler="latent"), steps=3),
        "all": request(seed=6, hires=hires(2), mask="grey", num_images=2, **start),
        "large": request(seed=7, width=48, height=48),
    }


def test_images_are_the_same_alone_and_in_a_batch(studio: Studio) -> None:
    jobs = mixed()
    engine = studio.engine()
    events = run(engine, jobs)
    assert engine.stats.evaluations / engine.stats.forwards > 2
    for job_id, wanted in jobs.items():
        together = of(ImageReady, events, job_id)
        alone = of(ImageReady, run(studio.engine(), {job_id: wanted}), job_id)
        assert len(together) == wanted.num_images
        for one, other in zip(together, alone, strict=True):
            assert numpy.abs(one.pixels.astype(int) - other.pixels).max() <= 1
    same = [of(ImageReady, events, job_id)[0].pixels for job_id in ("start", "again")]
    assert numpy.abs(same[0].astype(int) - same[1]).max() <= 1


def test_the_second_pass_shares_forwards_with_images_of_its_size(studio: Studio) -> None:
    engine = studio.engine()
    engine.admit("late", request(hires=hires(), steps=2))
    engine.admit("large", request(width=48, height=48, steps=8))
    events = drain(engine)
    (late,) = of(Finished, events, "late")
    assert late.mean_batch > 1


def test_cancelling_in_a_second_pass_closes_it(studio: Studio) -> None:
    engine = studio.engine()
    engine.admit("a", request(hires=hires(), mask="left", init_image="photo", strength=0.5))
    while not any(shape == (48, 48) for shape, _ in studio.calls):
        engine.step()
    (image,) = engine._running["a"].images.values()
    engine.cancel("a")
    assert inspect.getgeneratorstate(image.trajectory) == inspect.GEN_CLOSED
    assert engine.step() == []


# -- the shipped checkpoint --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Any:
    pictures: dict[str, Pixels] = {}

    def read(name: str) -> Pixels:
        return pictures[name]

    engine = load_engine(
        load_card("kirazuri-tiny"),
        None,
        device="cpu",
        precision="float32",
        threads=1,
        token_budget=8192,
        read_image=read,
    )
    wanted = bare(
        prompt="1girl, blue hair, twintails, smile, pink background", width=128, height=128,
        steps=12, cfg_scale=4.0, sampler="er_sde",
    )  # fmt: skip
    (image,) = of(ImageReady, run(engine, {"base": wanted}), "base")
    pictures["base"] = image.pixels
    mask = numpy.zeros((128, 128, 3), numpy.uint8)
    mask[:48] = 255
    pictures["top"] = mask
    return engine, pictures, wanted


def test_the_real_vae_reproduces_an_image(tiny: Any) -> None:
    engine, pictures, wanted = tiny
    kept = wanted.model_copy(update={"init_image": "base", "strength": 0.0})
    (image,) = of(ImageReady, run(engine, {"kept": kept}), "kept")
    assert image.pixels.shape == (128, 128, 3)
    assert distance(image.pixels, pictures["base"]) < 6


def test_the_real_network_repaints_only_inside_the_mask(tiny: Any) -> None:
    engine, pictures, wanted = tiny
    changes = {"prompt": "1girl, green hair, twintails, smile", "steps": 8}
    edit = wanted.model_copy(
        update={**changes, "init_image": "base", "strength": 0.8, "mask": "top"}
    )
    (image,) = of(ImageReady, run(engine, {"edit": edit}), "edit")
    assert (image.pixels[48:] == pictures["base"][48:]).all()
    hair = image.pixels[16:40, 48:80].reshape(-1, 3).mean(axis=0)
    was = pictures["base"][16:40, 48:80].reshape(-1, 3).mean(axis=0)
    assert was.argmax() == 2
    assert hair.argmax() == 1


def test_the_real_network_continues_at_a_higher_resolution(tiny: Any) -> None:
    engine, pictures, wanted = tiny
    second = ResolvedHires(
        scale=1.5, width=192, height=192, steps=6, strength=0.4, upscaler="lanczos"
    )
    large = wanted.model_copy(update={"hires": second})
    (image,) = of(ImageReady, run(engine, {"large": large}), "large")
    assert image.pixels.shape == (192, 192, 3)
    small = numpy.asarray(Image.fromarray(image.pixels).resize((128, 128), Image.Resampling.BOX))
    assert distance(small, pictures["base"]) < 25

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.card import load_card
from model.engine.engine import Engine
from model.engine.pipeline import Pipeline
from model.network.text.encoder import EncodedPrompt
from model.resolved_request import ResolvedRequest
from tests.support.velocities import by_rows, read_context
from training.evaluation.evaluate import (
    RULED,
    Setting,
    arrange_in_rows,
    check_burning,
    generate,
    judge,
    quality_shortfalls,
    request,
    shortfalls,
    unseen_avatars,
)
from training.evaluation.probe import Probe
from training.pictures.captions import prompt
from training.pictures.drawing import draw

SETTING = Setting("square", "euler", 2, 1.0)


def grey_engine() -> Engine:
    """The real engine on an exact model: a grey picture, as light as its prompt says."""

    def encode(text: str) -> EncodedPrompt:
        value = float(text) if text.removeprefix("-").isdigit() else 0.0
        context = torch.full((1, 1), value if value >= 0 else torch.nan)
        return EncodedPrompt(context, 1, 1, 1, 8, is_cut=False)

    def velocity(x: Tensor, sigmas: Tensor, contexts: Tensor) -> Tensor:
        return (x - contexts.view(-1, 1, 1, 1, 1)) / sigmas.view(-1, 1, 1, 1, 1)

    def decode(latents: Tensor) -> NDArray[np.uint8]:
        value = latents.mean().round().int().item()
        return np.full((1, 128, 128, 3), value, np.uint8)

    pipeline = Pipeline(encode, read_context, by_rows(velocity), decode, preview=decode)
    return Engine(pipeline, token_budget=1024)


def asked(*prompts: str) -> list[ResolvedRequest]:
    card = load_card("kirazuri-tiny")
    return [request(card, text, setting=SETTING, seed=seed) for seed, text in enumerate(prompts)]


def test_unseen_avatars_are_fixed_different_and_of_best_quality() -> None:
    avatars = unseen_avatars(300)
    assert avatars[:100] == unseen_avatars(100)
    assert len(set(avatars)) == 300
    assert {avatar.quality for avatar in avatars} == {"best"}


def test_requests_take_open_fields_from_the_card() -> None:
    card = load_card("kirazuri-tiny")
    setting = Setting("portrait", "er_sde", None, 4.0)
    made = request(card, "1girl", setting=setting, seed=0)
    assert (made.width, made.height) == (112, 144)
    assert made.steps == card.samplers["er_sde"].default_steps
    assert made.negative_prompt == card.defaults.negative_prompt
    assert request(card, "1girl", setting=setting, seed=0, negative="").negative_prompt == ""


def test_pictures_come_back_in_the_order_of_the_requests() -> None:
    numbers = list(range(100, 170))
    images = generate(grey_engine(), asked(*map(str, numbers)))
    assert [int(np.asarray(image)[0, 0, 0]) for image in images] == numbers


def test_a_failed_request_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"request 1: .*NaN"):
        generate(grey_engine(), asked("5", "-1", "7"))


def test_judging_separates_right_from_wrong_pictures() -> None:
    avatars = unseen_avatars(60)
    rng = np.random.default_rng(0)
    images = [draw(avatar, 128, 128, rng) for avatar in avatars]
    probe = Probe().eval()
    right = judge(avatars, images, probe)
    wrong = judge(avatars, images[1:] + images[:1], probe)
    for name in RULED:
        assert right[name] >= 0.98
        assert wrong[name] < 0.4


def test_burning_compares_the_negative_prompt_alone() -> None:
    card = load_card("kirazuri-tiny")
    seen: list[ResolvedRequest] = []

    def make(requests: list[ResolvedRequest]) -> list[Image.Image]:
        seen.extend(requests)
        colors = [(255, 0, 0) if asked.negative_prompt else (60, 60, 60) for asked in requests]
        return [Image.new("RGB", (32, 32), color) for color in colors]

    avatars = unseen_avatars(3)
    measured = check_burning(card, avatars, setting=SETTING, make=make)
    assert [asked.prompt for asked in seen] == [prompt(avatar) for avatar in avatars] * 2
    assert measured["without"] == {"saturation": 0.0, "clipped": 0.0}
    assert measured["with"] == {"saturation": 1.0, "clipped": 1.0}
    assert 0.1 < measured["drawn"]["saturation"] < 0.7


def test_quality_words_must_sharpen_and_not_burn() -> None:
    plain = {"saturation": 0.4, "clipped": 0.1}
    fine = {"without": plain, "with": {"saturation": 0.42, "clipped": 0.15}, "drawn": plain}
    burnt = fine | {"with": {"saturation": 0.5, "clipped": 0.3}}
    assert quality_shortfalls({"sharpness_ratio": 1.5}, fine) == []
    assert len(quality_shortfalls({"sharpness_ratio": 1.0}, fine)) == 1
    assert len(quality_shortfalls({"sharpness_ratio": 1.5}, burnt)) == 2


def test_bars_are_lower_for_samplers_other_than_the_default() -> None:
    shares = dict.fromkeys(("hair", "background", "clothes", "eyes", "style", "ornament"), 0.96)
    row = {"preset": "square", "accuracy": shares | {"expression": 0.7}}
    default = shortfalls(row | {"sampler": "er_sde"}, default_sampler="er_sde")
    assert [line.split()[1] for line in default] == ["hair", "background", "clothes", "expression"]
    assert shortfalls(row | {"sampler": "euler"}, default_sampler="er_sde") == []


def test_a_sheet_holds_every_picture() -> None:
    rng = np.random.default_rng(0)
    images = [draw(avatar, 112, 144, rng) for avatar in unseen_avatars(5)]
    sheet = arrange_in_rows(images, columns=2)
    assert sheet.size == (224, 432)
    assert sheet.crop((0, 288, 112, 432)).tobytes() == images[4].tobytes()

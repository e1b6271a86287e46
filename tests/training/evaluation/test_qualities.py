from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.card import load_card
from model.resolved_request import ResolvedRequest
from model.sampler_catalog import evaluations
from training.evaluation.evaluate import RULED, unseen_avatars, verdicts
from training.evaluation.probe import Probe
from training.evaluation.qualities import (
    MOST_DECIBELS,
    compare,
    decibels,
    mean_and_error,
    measure,
    steps_at,
    ways,
)
from training.pictures.drawing import draw

CARD = load_card("kirazuri-tiny")


@pytest.mark.parametrize("sampler", ["er_sde", "euler", "euler_ancestral"])
def test_fewer_steps_follow_each_quality_at_its_cost(sampler: str) -> None:
    exact, *others = ways(CARD, sampler)
    assert (exact.setting.quality, exact.setting.steps) == (
        "exact",
        CARD.samplers[sampler].default_steps,
    )
    assert [one.setting.quality for one in others] == ["balanced", "exact", "fast", "exact"]
    for lossy, fewer in zip(others[::2], others[1::2], strict=True):
        assert lossy.setting.steps == exact.setting.steps
        assert fewer.cost == lossy.cost < exact.cost
        assert fewer.name == f"{fewer.setting.steps} steps"


def test_fewer_steps_never_cost_less() -> None:
    """A step of two evaluations cannot cost every number of them."""
    for cost in range(1, 12):
        steps = steps_at(CARD, "heun", cost)
        assert evaluations("heun", "simple", steps) >= cost
        assert steps == 1 or evaluations("heun", "simple", steps - 1) < cost


def test_decibels_of_known_differences() -> None:
    black, dark = (Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 51))
    assert decibels(dark, black) == pytest.approx(20 * np.log10(5))  # 255 is five times 51
    assert decibels(black, black) == MOST_DECIBELS


def test_the_error_of_a_mean_falls_with_the_root_of_the_number() -> None:
    few = np.array([0.0, 1.0])
    assert mean_and_error(few) == pytest.approx((0.5, 0.5))
    many = np.random.default_rng(0).normal(3, 2, 10_000)
    mean, error = mean_and_error(many)
    assert mean == pytest.approx(3, abs=0.1)
    assert error == pytest.approx(2 / 100, rel=0.05)


def test_the_colour_of_closed_eyes_is_not_judged() -> None:
    open_eyes, shut = (replace(unseen_avatars(1)[0], eyes=eyes) for eyes in ("open", "closed eyes"))
    rng, probe = np.random.default_rng(0), Probe().eval()
    images = [draw(avatar, 128, 128, rng) for avatar in (open_eyes, shut)]
    found = verdicts([open_eyes, shut], images, probe)
    assert np.isnan(found.pop("eyes")).tolist() == [False, True]
    assert len(found) == 12
    of_shut = np.mean([of_pictures[1] for of_pictures in found.values()])
    assert measure([open_eyes, shut], images, images, probe).right[1] == pytest.approx(of_shut)


def test_a_row_says_what_a_quality_gains_over_fewer_steps() -> None:
    """Exact pictures are drawn, those of a quality have a little noise, fewer steps are wrong."""
    avatars = unseen_avatars(12)
    rng = np.random.default_rng(0)
    drawn = [draw(avatar, 128, 128, rng) for avatar in avatars]
    asked: list[tuple[str, int]] = []

    def make(requests: list[ResolvedRequest], float8: bool) -> list[Image.Image]:
        assert not float8
        first = requests[0]
        assert [one.seed for one in requests] == list(range(len(avatars)))
        asked.append((first.quality, first.steps))
        if first.quality != "exact":
            return [image.point(lambda level: level + 2) for image in drawn]
        return drawn if first.steps == 20 else drawn[1:] + drawn[:1]

    exact, balanced, fewer, fast, least = compare(
        CARD, "euler", avatars, make=make, probe=Probe().eval()
    )
    assert asked == [
        ("exact", 20), ("balanced", 20), ("exact", 14), ("fast", 20), ("exact", 12),
    ]  # fmt: skip
    assert exact["psnr"] == (MOST_DECIBELS, 0.0)
    assert exact["beyond_exact"] == (0.0, 0.0)
    for lossy, at_its_cost in ((balanced, fewer), (fast, least)):
        assert lossy["psnr"][0] > 40 > at_its_cost["psnr"][0]
        assert at_its_cost["gain"]["psnr"][0] == pytest.approx(
            lossy["psnr"][0] - at_its_cost["psnr"][0]
        )
        assert at_its_cost["gain"]["right"][0] > 0
        assert min(lossy["by_attribute"][name] for name in RULED) > 0.9
        assert max(at_its_cost["by_attribute"][name] for name in RULED) < 0.6
    assert "gain" not in exact
    assert "gain" not in balanced

from dataclasses import asdict, fields, replace
from itertools import combinations

import numpy as np
import pytest

from training.evaluation.rules import to_lab
from training.pictures import avatars
from training.pictures.avatars import Avatar, sample_avatar
from training.pictures.drawing import SKIN, draw

SIZES = [(128, 128), (112, 144), (144, 112), (192, 192)]
VALUES = {
    "subject": avatars.SUBJECTS,
    "hair_color": tuple(avatars.HAIR_COLORS),
    "hair_style": avatars.HAIR_STYLES,
    "eye_color": tuple(avatars.EYE_COLORS),
    "eyes": avatars.EYES,
    "expression": avatars.EXPRESSIONS,
    "ornament": avatars.ORNAMENTS,
    "outfit": avatars.OUTFITS,
    "outfit_color": tuple(avatars.OUTFIT_COLORS),
    "background": tuple(avatars.BACKGROUNDS),
    "glasses": (False, True),
    "blush": (False, True),
    "quality": avatars.QUALITIES,
}
PLAIN = Avatar(
    subject="1girl",
    hair_color="pink hair",
    hair_style="long hair",
    eye_color="blue eyes",
    eyes="open",
    expression="smile",
    ornament="none",
    outfit="hoodie",
    outfit_color="white",
    background="green background",
    glasses=False,
    blush=False,
    quality="normal",
)


def drawn(avatar: Avatar, seed: int = 0) -> np.ndarray:
    return np.asarray(draw(avatar, 128, 128, np.random.default_rng(seed)), dtype=np.float64)


def test_a_seed_fixes_the_avatar_and_its_picture() -> None:
    one, other = (np.random.default_rng(3) for _ in range(2))
    assert sample_avatar(one) == sample_avatar(other)
    assert draw(PLAIN, 128, 128, one).tobytes() == draw(PLAIN, 128, 128, other).tobytes()


def test_samples_cover_every_value_and_keep_closed_eyes_rare() -> None:
    rng = np.random.default_rng(0)
    seen = [asdict(sample_avatar(rng)) for _ in range(3000)]
    assert set(VALUES) == {field.name for field in fields(Avatar)}
    for name, values in VALUES.items():
        assert {avatar[name] for avatar in seen} == set(values)
    closed = sum(avatar["eyes"] != "open" for avatar in seen) / len(seen)
    low = sum(avatar["quality"] == "low quality" for avatar in seen) / len(seen)
    assert 0.04 < closed < 0.10
    assert 0.08 < low < 0.12


@pytest.mark.parametrize(("width", "height"), [*SIZES, (96, 320), (320, 96)])
def test_pictures_have_the_requested_size(width: int, height: int) -> None:
    image = draw(PLAIN, width, height, np.random.default_rng(0))
    assert (image.size, image.mode) == ((width, height), "RGB")


@pytest.mark.parametrize(("width", "height"), [(80, 128), (128, 336), (100, 128)])
def test_other_sizes_are_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"size {width}x{height}"):
        draw(PLAIN, width, height, np.random.default_rng(0))


@pytest.mark.parametrize("name", list(VALUES))
def test_every_value_is_visible(name: str) -> None:
    """Two values of one attribute never give the same picture, all else equal."""
    pictures = [drawn(Avatar(**(asdict(PLAIN) | {name: value}))) for value in VALUES[name]]
    for one, other in combinations(pictures, 2):
        changed = (np.abs(one - other).max(axis=2) > 30).sum()
        assert changed >= 40


@pytest.mark.parametrize(
    "palette",
    [avatars.HAIR_COLORS, avatars.EYE_COLORS, avatars.BACKGROUNDS, avatars.OUTFIT_COLORS],
    ids=["hair", "eyes", "background", "outfit"],
)
def test_colors_of_a_palette_are_far_apart(palette: dict[str, avatars.Color]) -> None:
    labs = to_lab(np.array(list(palette.values())))
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(labs, 2)) > 23


def test_no_hair_has_the_color_of_skin() -> None:
    labs = to_lab(np.array(list(avatars.HAIR_COLORS.values())))
    assert np.linalg.norm(labs - to_lab(np.array(SKIN)), axis=1).min() > 10


def test_low_quality_is_softer_and_keeps_its_colors() -> None:
    good, poor = drawn(PLAIN), drawn(replace(PLAIN, quality="low quality"))
    edges = [np.abs(np.diff(picture, axis=1)).mean() for picture in (good, poor)]
    assert edges[1] < 0.75 * edges[0]
    assert np.abs(good.mean(axis=(0, 1)) - poor.mean(axis=(0, 1))).max() < 12

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from training.evaluation.rules import nearest, read_colors, to_lab
from training.pictures.avatars import sample_avatar
from training.pictures.drawing import draw

SIZES = [(128, 128), (112, 144), (144, 112), (192, 192)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_rules_are_right_on_drawn_pictures(width: int, height: int) -> None:
    rng, count = np.random.default_rng(width * height), 50
    right = {"hair_color": 0, "background": 0, "outfit_color": 0}
    for _ in range(count):
        avatar = sample_avatar(rng)
        for name, color in read_colors(draw(avatar, width, height, rng)).items():
            right[name] += color == getattr(avatar, name)
    assert min(right.values()) >= 0.98 * count, right


def test_rules_do_not_answer_with_one_color_for_all() -> None:
    black, white = (
        read_colors(Image.new("RGB", (128, 128), color)) for color in ("black", "white")
    )
    assert black["hair_color"] == "black hair"
    assert white["hair_color"] == "white hair"
    assert black["background"] != white["background"]


def test_lab_of_white_black_and_red() -> None:
    lab = to_lab(np.array([(255, 255, 255), (0, 0, 0), (255, 0, 0)]))
    # Bruce Lindbloom's published values for sRGB red under D65: 53.24, 80.09, 67.20.
    assert np.allclose(lab, [(100, 0, 0), (0, 0, 0), (53.24, 80.09, 67.20)], atol=0.05)


def test_nearest_takes_the_closest_entry() -> None:
    palette = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    assert nearest((200, 40, 60), palette) == "red"


def test_rules_need_no_torch() -> None:
    code = "import sys, training.evaluation.rules; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Tests the input images that a worker holds in memory."""

import numpy
import pytest

from model.errors import InputMissing
from worker.images.input_images import HeldImages

PHOTO = "a" * 40 + ".png"


def test_an_image_is_held_until_it_is_released() -> None:
    inputs, pixels = HeldImages(), numpy.zeros((1, 1, 3), numpy.uint8)
    inputs.hold("token", {PHOTO: pixels})
    assert inputs.read(PHOTO) is pixels
    inputs.release("token")
    with pytest.raises(InputMissing):
        inputs.read(PHOTO)


def test_two_jobs_may_hold_the_same_image() -> None:
    inputs, pixels = HeldImages(), numpy.zeros((1, 1, 3), numpy.uint8)
    for token in ("a", "b"):
        inputs.hold(token, {PHOTO: pixels})
    inputs.release("a")
    assert inputs.read(PHOTO) is pixels

"""Pictures follow the prompt and the negative prompt; files contain their recipe."""

import io
import itertools
import json
from typing import Any

import httpx2
import numpy
import pytest
from PIL import Image

from tests.support.pictures import QUALITY, event_lines, finished, picture, pixels, submit
from training.evaluation.rules import read_colors
from training.pictures.avatars import BACKGROUNDS, HAIR_COLORS

pytestmark = pytest.mark.timeout(180)


def test_words_give_hair_and_background_colours(service: httpx2.Client) -> None:
    """All 12 hair colours, each with one of the 10 background colours."""
    backgrounds = itertools.cycle(BACKGROUNDS)
    wanted = dict(zip(HAIR_COLORS, backgrounds, strict=False))
    rest = "long hair, blue eyes, smile, white serafuku"
    jobs = [
        submit(service, prompt=f"{QUALITY}, {hair}, {rest}, {background}", seed=11)
        for hair, background in wanted.items()
    ]
    seen = [read_colors(picture(service, finished(service, job))) for job in jobs]
    assert len(HAIR_COLORS) == 12
    assert {colors["hair_color"]: colors["background"] for colors in seen} == wanted


def test_a_negative_prompt_removes_what_it_names(service: httpx2.Client) -> None:
    """The prompt does not name a background; a negative prompt with the drawn one changes it."""
    base = {"prompt": f"{QUALITY}, blue hair, smile"}

    def backgrounds(negative_prompts: list[str]) -> list[str]:
        jobs = [
            submit(service, **base, seed=seed, negative_prompt=text)
            for seed, text in enumerate(negative_prompts)
        ]
        return [read_colors(picture(service, finished(service, j)))["background"] for j in jobs]

    drawn = backgrounds([""] * 4)
    avoided = backgrounds(drawn)
    assert all(one != other for one, other in zip(drawn, avoided, strict=True)), (drawn, avoided)


def test_the_same_request_gives_the_same_picture_and_another_seed_another(
    service: httpx2.Client,
) -> None:
    fields = {"prompt": f"{QUALITY}, red hair, twintails, hair bow", "steps": 8}
    first, again, other = (
        picture(service, finished(service, submit(service, **fields, seed=seed)))
        for seed in (5, 5, 6)
    )
    assert numpy.abs(pixels(first) - pixels(again)).max() <= 1
    assert numpy.abs(pixels(first) - pixels(other)).mean() > 1


def test_image_k_of_a_request_is_the_picture_of_seed_plus_k(service: httpx2.Client) -> None:
    fields = {"prompt": f"{QUALITY}, aqua hair", "steps": 6}
    several = finished(service, submit(service, **fields, seed=20, num_images=3))
    assert [image["seed"] for image in several["images"]] == [20, 21, 22]
    single = finished(service, submit(service, **fields, seed=22))
    difference = pixels(picture(service, several, 2)) - pixels(picture(service, single))
    assert numpy.abs(difference).max() <= 1


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg", "avif"])
def test_every_format_carries_the_recipe_and_the_mark(service: httpx2.Client, kind: str) -> None:
    job = submit(service, prompt=f"{QUALITY}, pink hair, ミク", steps=4, seed=9, image_format=kind)
    done = finished(service, job)
    answer = service.get(done["images"][0]["url"])
    assert answer.headers["content-type"] == f"image/{kind}"
    assert len(answer.content) == done["images"][0]["bytes"]
    assert b"trainedAlgorithmicMedia" in answer.content
    image = Image.open(io.BytesIO(answer.content))
    image.load()
    if kind == "png":
        text = image.info["parameters"]
    else:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
        assert comment.startswith(b"UNICODE\0")
        text = comment[8:].decode("utf-16-be")
    assert text.startswith(f"{QUALITY}, pink hair, ミク\nNegative prompt: ")
    assert "\nSteps: 4, Sampler: ER SDE, Schedule type: Simple, CFG scale: 4" in text
    assert "Seed: 9, Size: 128x128, Model hash: " in text


def test_progress_comes_at_every_step_and_ends_with_the_picture(service: httpx2.Client) -> None:
    job = submit(service, prompt=f"{QUALITY}, white hair", steps=5, seed=1)
    events: list[tuple[str, dict[str, Any]]] = []
    name = ""
    with service.stream("GET", job["links"]["events"]) as stream:
        for line in event_lines(stream):
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                events.append((name, json.loads(line.removeprefix("data:"))))
    names = [name for name, _ in events]
    assert names[-1] == "succeeded"
    assert "image" in names
    steps = [data["step"] for name, data in events if name == "progress"]
    assert steps == [1, 2, 3, 4, 5]

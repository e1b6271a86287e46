"""Tests encoded files: read back with Pillow, the recipe with the web UIs' own expression."""

import io
import json
import re
from typing import Any

import numpy
import pytest
from PIL import ExifTags, Image

from model.recipes.infotext import write_infotext
from model.recipes.recipe import Recipe
from model.request import ImageFormat, MetadataLevel
from model.resolved_request import ResolvedHires, ResolvedLora
from tests.support.requests import make_request
from worker.images.encode import encode_image

RECIPE = Recipe(card="kirazuri-tiny", checkpoint="0123456789abcdef" * 4, service="k 0.1")
FORMATS: tuple[ImageFormat, ...] = ("png", "webp", "jpeg", "avif")
MARK = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def picture() -> Any:
    """Three flat areas with sharp edges, 96 wide and 64 high."""
    pixels = numpy.zeros((64, 96, 3), dtype=numpy.uint8)
    pixels[:, :32], pixels[:, 32:64], pixels[:, 64:] = (230, 40, 60), (40, 60, 230), (250, 240, 90)
    return pixels


def save(image_format: ImageFormat, metadata: MetadataLevel = "full", **changes: Any) -> bytes:
    request = make_request(
        width=96, height=64, image_format=image_format, metadata=metadata, **changes
    )
    return encode_image(picture(), request=request, recipe=RECIPE, seed=5)


def recipe_in(data: bytes) -> str | None:
    """The recipe that readers of such files find."""
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            return image.info.get("parameters")
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if comment is None:
        return None
    assert comment[:8] == b"UNICODE\0"
    return str(comment[8:].decode("utf-16-be"))


def parse(text: str) -> dict[str, str]:
    """The fields of a recipe, as the web UIs parse it."""
    *lines, last = text.strip().split("\n")
    pairs = PAIR.findall(last)
    assert len(pairs) >= 3
    prompt: list[str] = []
    negative: list[str] = []
    is_negative = False
    for line in lines:
        if line.startswith("Negative prompt:"):
            is_negative, line = True, line[16:].strip()
        (negative if is_negative else prompt).append(line)
    return {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative), **dict(pairs)}


@pytest.mark.parametrize("image_format", FORMATS)
def test_pixels_come_back(image_format: ImageFormat) -> None:
    with Image.open(io.BytesIO(save(image_format))) as image:
        assert image.format == image_format.upper()
        read = numpy.asarray(image.convert("RGB")).astype(int)
    error = numpy.abs(read - picture())
    assert error.max() == 0 if image_format == "png" else error.mean() < 3


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("prompt", ["1girl, blue hair", "1girl, 青い髪, ✨"])
def test_the_recipe_comes_back(image_format: ImageFormat, prompt: str) -> None:
    text = recipe_in(save(image_format, prompt=prompt, negative_prompt="low quality"))
    assert text is not None
    assert parse(text) == {
        "Prompt": prompt,
        "Negative prompt": "low quality",
        "Steps": "4",
        "Sampler": "Euler",
        "Schedule type": "Simple",
        "CFG scale": "4",
        "Seed": "5",
        "Size": "96x64",
        "Model hash": "0123456789",
        "Model": "kirazuri-tiny",
        "Version": "k 0.1",
    }


@pytest.mark.parametrize("image_format", FORMATS)
def test_metadata_levels(image_format: ImageFormat) -> None:
    full, minimal, none = [save(image_format, level) for level in ("full", "minimal", "none")]
    assert [MARK in data for data in (full, minimal, none)] == [True, True, False]
    assert [recipe_in(data) is not None for data in (full, minimal, none)] == [True, False, False]
    assert b"1girl" not in minimal.replace(b"\0", b"")


def test_the_text_is_before_the_pixels_in_a_png() -> None:
    data = save("png")
    assert data.index(b"tEXtparameters") < data.index(b"IDAT")
    assert b"iTXtparameters" in save("png", prompt="青い髪")


def test_an_empty_negative_prompt_has_a_line() -> None:
    text = write_infotext(make_request(), RECIPE, seed=1)
    assert "\nNegative prompt: \nSteps: 4, " in text


def test_values_with_separators_are_quoted() -> None:
    recipe = RECIPE.model_copy(update={"card": 'my, "best": model'})
    text = write_infotext(make_request(cfg_scale=4.5), recipe, seed=1)
    assert parse(text)["Model"] == '"my, \\"best\\": model"'
    assert parse(text)["CFG scale"] == "4.5"


def test_sampler_options_are_written_if_there_are_any() -> None:
    assert "Sampler options" not in write_infotext(make_request(), RECIPE, seed=1)
    options: dict[str, Any] = {"eta": 0.5, "solver_type": "heun"}
    text = write_infotext(make_request(sampler_options=options), RECIPE, seed=1)
    assert json.loads(json.loads(parse(text)["Sampler options"])) == options


def test_fine_jpegs_keep_their_colour_edges() -> None:
    def components(quality: int) -> Any:
        with Image.open(io.BytesIO(save("jpeg", image_quality=quality))) as image:
            return [layer[1:3] for layer in image.layer]  # type: ignore[attr-defined]

    assert components(95) == [(1, 1)] * 3
    assert components(50)[0] == (2, 2)


def test_a_fast_png_is_no_larger() -> None:
    """Than at Pillow's level 4, which takes several times as long."""
    generator = numpy.random.default_rng(1)
    ramp = numpy.linspace(40, 220, 512)[:, None, None] + numpy.linspace(0, 30, 768)[None, :, None]
    soft = ramp + 8 * numpy.sin(numpy.arange(768) / 9)[None, :, None]
    for noise in (0.05, 0.2, 0.6, 2.0):
        grain = generator.normal(0, noise, (512, 768, 3))
        pixels = (soft + grain).round().clip(0, 255).astype(numpy.uint8)
        request = make_request(width=768, height=512, metadata="none")
        data = encode_image(pixels, request=request, recipe=RECIPE, seed=5)
        slow = io.BytesIO()
        Image.fromarray(pixels, "RGB").save(slow, format="png", compress_level=4)
        assert len(data) <= 1.05 * len(slow.getvalue()), noise
        with Image.open(io.BytesIO(data)) as image:
            assert numpy.array_equal(numpy.asarray(image), pixels)


def test_lower_quality_is_smaller() -> None:
    noise = numpy.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=numpy.uint8)
    for image_format in ("webp", "jpeg", "avif"):
        sizes = [
            len(
                encode_image(
                    noise,
                    request=make_request(image_format=image_format, image_quality=quality),
                    recipe=RECIPE,
                    seed=1,
                )
            )
            for quality in (10, 95)
        ]
        assert sizes[0] < sizes[1]


def test_a_prompt_too_long_for_jpeg_costs_only_the_recipe() -> None:
    data = save("jpeg", prompt="😀" * 10_000, negative_prompt="😀" * 10_000)
    assert recipe_in(data) is None
    assert MARK in data
    assert recipe_in(save("webp", prompt="😀" * 10_000, negative_prompt="😀" * 10_000))


def test_edits_are_written_under_the_web_uis_keys() -> None:
    start: dict[str, Any] = {"init_image": "a.png", "strength": 0.6, "mask": "b.png"}
    second = ResolvedHires(
        scale=1.5, width=144, height=96, steps=7, strength=0.35, upscaler="latent"
    )
    hires_keys = {
        "Hires upscale": "1.5", "Hires steps": "7", "Hires upscaler": "Latent (bicubic)",
    }  # fmt: skip

    def written(**changes: Any) -> dict[str, str]:
        pairs = parse(write_infotext(make_request(**changes), RECIPE, seed=1))
        return {
            key: value
            for key, value in pairs.items()
            if key.startswith(("Denoising", "Hires", "Init", "Mask"))
        }

    assert written() == {}
    assert written(hires=second) == {"Denoising strength": "0.35", **hires_keys}
    edit = {"Denoising strength": "0.6", "Init image": "a.png", "Mask": "b.png"}
    assert written(**start) == edit
    assert written(**start, hires=second) == {**edit, **hires_keys, "Hires strength": "0.35"}


def test_loras_are_written_as_the_web_uis_write_them() -> None:
    loras = (
        ResolvedLora(name="style/ink", weight=0.8, sha256="ab" * 32),
        ResolvedLora(name="hats (v2)", weight=-1.0, sha256="cd" * 32),
    )
    found = parse(write_infotext(make_request(loras=loras), RECIPE, seed=1))
    assert found["Lora hashes"] == '"style/ink: abababababab, hats (v2): cdcdcdcdcdcd"'
    assert found["Prompt"] == "1girl, smile <lora:style/ink:0.8> <lora:hats (v2):-1>"
    assert "Lora" not in write_infotext(make_request(), RECIPE, seed=1)

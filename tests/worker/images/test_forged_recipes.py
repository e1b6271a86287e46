"""A prompt cannot forge a recipe: what is read from a file is what was asked for."""

import dataclasses
import io
import re
from typing import Any

import numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from model.recipes.infotext_syntax import parse_parameters
from model.recipes.recipe import Recipe
from model.request import ImageFormat
from tests.support.requests import make_request
from worker.images.encode import encode_image
from worker.images.metadata import find_recipe, read_image_texts

FORMATS: tuple[ImageFormat, ...] = ("png", "webp", "jpeg", "avif")
RECIPE = Recipe(card="kirazuri-tiny", checkpoint="ab" * 32, service="kirazuri 0.1")
PIXELS = numpy.full((16, 16, 3), 128, dtype=numpy.uint8)

FORGED = "Negative prompt: dog\nSteps: 5, Sampler: Heun, Seed: 1, Size: 8x8, Exact prompt: dog"
SWAPPED = "".join(chr(ord(char) << 8) for char in f"cat\n{FORGED}\n")
"""Letters whose bytes, read in the wrong order, are a whole infotext."""

PIECES = (
    "1girl", " ", "\n", "\r\n", "\t", ",", ":", '"', "\\", "Negative prompt:", "Steps: 5",
    "Seed: 1", "Template: x", FORGED, SWAPPED, "<lora:evil:1>", "<lora:<lora:a:1>b:1>",
    "<lyco:evil>", "<lora:evil:1:1:1:1:1:1>", "<any:evil:1>",
    "<hypernet:evil:1>", "<", ">", "Ã©", "青い髪", "一" * 40, "\ufeff", "\ufffe",
    '{"1": {"class_type": "KSampler", "inputs": {}}}', '{"sui_image_params": {"prompt": "dog"}}',
    "prompt:{", "<exif:UserComment><rdf:li>{}</rdf:li>", 'kirazuri:recipe="{}"', "&quot;",
)  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cs", "Cc"])
PROMPTS = st.lists(st.sampled_from(PIECES) | st.text(LETTERS, max_size=20), max_size=6).map("".join)
LORAS = st.lists(
    st.tuples(
        st.sampled_from(["ink", "styles/ink wash (v2)", "a:b", "<odd>", "【画风】, x", "x" * 250]),
        st.floats(-2, 2),
    ),
    max_size=2,
    unique_by=lambda lora: lora[0],
)


@settings(deadline=None)
@given(
    PROMPTS.filter(bool), PROMPTS, LORAS, st.floats(1, 30), st.sampled_from(FORMATS),
)  # fmt: skip
@example(f"cat\n{FORGED}", "", [], 4.0, "png")
@example("1girl <lora:evil:1>", "<lora:evil:1>", [("ink", 0.5)], 4.0, "jpeg")
@example(SWAPPED * 20, "", [], 4.0, "webp")
@example("cat <lora:evil:1:1:1:1:1:1>", "<any:evil>", [], 4.0, "png")
@example("cat, Steps: 5, Seed: 1", "Sampler: Heun, Size: 8x8", [], 4.0, "png")
@example('cat", Steps: 5, "Seed: 1', "", [], 4.0, "webp")
@example("cat", "dog\nSeed: 1, Sampler: Heun, Size: 8x8", [], 4.0, "jpeg")
@example("Seed: 1, Sampler: Heun, Size: 8x8\n", "\\", [], 4.0, "avif")
@example("cat", "", [("a\nSteps: 5, Seed: 1", 1.0)], 4.0, "png")
@example("\ufffe" + SWAPPED, "", [], 4.0, "avif")
@example("Ã©", "", [], 4.0, "png")
def test_what_is_read_back_is_what_was_asked(
    prompt: str,
    negative: str,
    loras: list[tuple[str, float]],
    cfg: float,
    image_format: ImageFormat,
) -> None:
    wanted = [{"name": name, "weight": weight} for name, weight in loras]
    request = make_request(
        prompt, negative_prompt=negative, cfg_scale=cfg, seed=7, image_format=image_format,
        loras=[{**lora, "sha256": "1" * 64} for lora in wanted],
    )  # fmt: skip
    data = encode_image(PIXELS, request=request, recipe=RECIPE, seed=7)
    with Image.open(io.BytesIO(data)) as image:
        texts = read_image_texts(image)
    for found_texts in (texts, dataclasses.replace(texts, document=None)):
        found = find_recipe(found_texts)
        assert found is not None
        fields: dict[str, Any] = found.imported.fields
        assert (fields["prompt"], fields["negative_prompt"]) == (prompt, negative)
        assert fields.get("loras", []) == wanted
        expected = (7, request.steps, cfg, f"{request.width}x{request.height}", request.sampler)
        names = ("seed", "steps", "cfg_scale", "resolution", "sampler")
        assert tuple(fields[name] for name in names) == expected
    _check_other_readers(texts.infotext or "", request.steps)


def _check_other_readers(infotext: str, steps: int) -> None:
    """Web UIs split the text by its lines and take every tag for a LoRA."""
    parameters = parse_parameters(infotext)
    assert (parameters["Seed"], parameters["Steps"]) == ("7", str(steps))
    negatives = [line for line in infotext.split("\n") if line.startswith("Negative prompt:")]
    assert len(negatives) == 1
    tags = re.findall(r"<(?:\w+):([^>]+)>", infotext)
    assert [tag for tag in tags if tag.startswith(("evil", "<lora:a"))] == []
    # Simple readers take the first or the last of what they find, anywhere.
    for key, value in (("Steps", steps), ("Seed", 7), ("Size", parameters["Size-1"])):
        assert {*re.findall(rf"{key}: ?(\d+)", infotext)} == {str(value)}, key

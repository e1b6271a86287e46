"""Options of `kirazuri generate` as fields of the request."""

import base64
import math
from pathlib import Path

import pytest

from cli.client.errors import ClientError
from cli.client.fields import (
    hires_field,
    image_field,
    lora_field,
    require_json,
    sampler_options_field,
)

NAME = "0" * 40 + ".png"


def test_a_file_is_sent_as_base64(tmp_path: Path) -> None:
    file = tmp_path / "girl.png"
    file.write_bytes(b"\x89PNG bytes")
    assert base64.b64decode(image_field("--mask", str(file))) == b"\x89PNG bytes"


def test_an_image_of_the_service_is_sent_by_name_or_url() -> None:
    for value in (NAME, f"/images/{NAME}", f"http://host/images/{NAME}"):
        assert image_field("--init-image", value) == value


@pytest.mark.parametrize("value", ["gril.png", "folder/girl.png", ""])
def test_a_missing_file_is_named(value: str) -> None:
    with pytest.raises(ClientError, match=r"--init-image .*: no such file"):
        image_field("--init-image", value)


def test_a_second_pass_needs_a_scale() -> None:
    assert hires_field({"scale": None, "steps": None}) is None
    fields = hires_field({"scale": 1.5, "steps": None, "strength": None, "upscaler": "latent"})
    assert fields == {"scale": 1.5, "upscaler": "latent"}
    with pytest.raises(ClientError, match="--hires-steps: give --hires-scale too"):
        hires_field({"scale": None, "steps": 5, "strength": None, "upscaler": None})


def test_loras_have_weights_after_a_colon() -> None:
    assert lora_field("style/ink") == {"name": "style/ink"}
    assert lora_field("hats:-0.5") == {"name": "hats", "weight": -0.5}
    with pytest.raises(ClientError, match="'much' is not a weight"):
        lora_field("hats:much")


def test_sampler_options_are_numbers_booleans_or_words() -> None:
    pairs = ["eta=0.5", "simple_order_2=true", "solver_type=heun", "max_order=2"]
    assert sampler_options_field(pairs) == {
        "eta": 0.5,
        "simple_order_2": True,
        "solver_type": "heun",
        "max_order": 2,
    }
    infinite = sampler_options_field(["eta=NaN", "s_noise=1e999"])
    assert infinite == {"eta": "NaN", "s_noise": "1e999"}
    assert sampler_options_field(None) is sampler_options_field([]) is None
    with pytest.raises(ClientError, match="--sampler-option eta: must be NAME=VALUE"):
        sampler_options_field(["eta"])


def test_a_pasted_image_is_not_repeated_in_the_message() -> None:
    for value in ("data:image/png;base64," + "A" * 5000, "A/" * 3000):
        with pytest.raises(ClientError) as caught:
            image_field("--init-image", value)
        assert str(caught.value).startswith("--init-image ")
        assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"steps": 3, "cfg_scale": math.nan}, "cfg_scale: nan and infinity"),
        ({"loras": [{"name": "a", "weight": -math.inf}]}, "loras: nan and infinity"),
        ({"prompt": "1girl \udcff"}, "prompt: it is not UTF-8 text"),
    ],
)
def test_what_json_cannot_say_is_named(body: dict[str, object], named: str) -> None:
    with pytest.raises(ClientError, match=named):
        require_json(body)

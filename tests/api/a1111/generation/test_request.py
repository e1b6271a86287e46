"""What the fields of the A1111 surface become; and which checkpoint, sizes and LoRAs are meant."""

from typing import Any

import pytest

from api.a1111.checkpoint import check_checkpoint, checkpoint_title
from api.a1111.generation.request import A1111Request, parse_request, to_a1111_names
from api.a1111.generation.request_fields import ImageToImage, TextToImage
from api.http.errors import UnknownModel
from model.card import load_card
from model.card_request import request_type

TINY, LARGE = load_card("kirazuri-tiny"), load_card("kirazuri-v1")
LORAS = ("watercolor", "anima/ink")
SILENT = {"prompt": " ", "previews": True}


def wish(card: Any = LARGE, **body: Any) -> A1111Request:
    return parse_request(TextToImage.model_validate(body), card, LORAS)


def wish_from_picture(**body: Any) -> A1111Request:
    return parse_request(ImageToImage.model_validate({"init_images": ["x"], **body}), LARGE, LORAS)


def test_nothing_asked_for_is_what_the_checkpoint_likes() -> None:
    assert wish() == A1111Request(SILENT, [], [])
    empty = {"seed": "", "steps": "", "sampler_name": "", "scheduler": "", "styles": None}
    assert wish(**empty) == A1111Request(SILENT, [], [])


def test_unknown_fields_are_ignored() -> None:
    body = {"url": "http://me", "auth": "user:secret", "s_tmax": None, "hr_cfg": 1.0, "eta": 0.3}
    assert wish(**body) == A1111Request(SILENT, [], [])


def test_the_defaults_that_clients_send_unasked() -> None:
    found = wish(
        prompt="1girl",
        sampler_name="Euler a",
        sampler_index="Euler a",
        scheduler="automatic",
        width=512,
        height=512,
        seed=-1,
        steps=20,
        cfg_scale=7.0,
        enable_hr=False,
        hr_scale=2,
        hr_upscaler="Latent",
        denoising_strength=0.7,
        batch_size=1,
        n_iter=1,
        negative_prompt="",
        styles=[],
        override_settings={},
        script_name=None,
        alwayson_scripts={},
    )
    assert found.fields == {
        "prompt": "1girl",
        "negative_prompt": "",
        "sampler": "euler_ancestral",
        "seed": None,
        "steps": 20,
        "cfg_scale": 7.0,
        "num_images": 1,
        "previews": True,
    }
    assert not found.notes


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, {"sampler": "dpmpp_2m", "scheduler": "karras"}),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Beta"},
         {"sampler": "dpmpp_2m", "scheduler": "beta"}),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "Automatic"},
         {"sampler": "dpmpp_2m", "scheduler": "karras"}),
        ({"sampler_name": "DPM++ 2M SDE Heun"},
         {"sampler": "dpmpp_2m_sde", "sampler_options": {"solver_type": "heun"}}),
        ({"sampler_name": "er_sde"}, {"sampler": "er_sde"}),
        ({"sampler_index": "Euler"}, {"sampler": "euler"}),
        ({"sampler_name": "Euler a", "sampler_index": "Euler"}, {"sampler": "euler_ancestral"}),
        ({"sampler_name": "DDIM"}, {"sampler": "euler", "scheduler": "ddim_uniform"}),
        ({"scheduler": "SGM Uniform"}, {"scheduler": "sgm_uniform"}),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": "7"}, {"seed": 7}),
        ({"seed": -5}, {"seed": None}),
        ({"batch_size": 2, "n_iter": 3}, {"num_images": 6}),
        ({"n_iter": 4}, {"num_images": 4}),
        ({"width": 832, "height": 1216}, {"resolution": "832x1216"}),
        ({"width": 600, "height": 800}, {"resolution": "608x800"}),
        ({"width": 1024}, {"resolution": "1024x512"}),
        ({"width": 8192, "height": 8192}, {"resolution": "1280x1280"}),
        ({"override_settings": {"samples_format": "jpg", "jpeg_quality": 150}},
         {"image_format": "jpeg", "image_quality": 100}),
        ({"override_settings": {"live_previews_enable": False}}, {"previews": False}),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2, "sd_vae": "x"}}, {}),
        ({"prompt": "a <lora:watercolor:0.8> b <lora:Ink>"},
         {"prompt": "a  b", "loras": [{"name": "watercolor", "weight": 0.8},
                                      {"name": "anima/ink", "weight": 1.0}]}),
        ({"prompt": "<lora:ink:0.5><lora:anima/ink:0.3>"},
         {"prompt": " ", "loras": [{"name": "anima/ink", "weight": 0.8}]}),
    ],
)  # fmt: skip
def test_fields(body: dict[str, Any], fields: dict[str, Any]) -> None:
    found = wish(**body)
    assert found.fields == SILENT | fields
    assert not found.errors
    request_type(LARGE, lambda: LORAS).model_validate(found.fields)


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (
            {"scheduler": "Align Your Steps"},
            "scheduler Align Your Steps: unknown; using the default",
        ),
        ({"width": 600, "height": 800}, "size 600x800: using 608x800, the nearest"),
        ({"restore_faces": True}, "restore_faces: ignored"),
        ({"styles": ["None", "Film"]}, "styles: ignored"),
        ({"subseed_strength": 0.2}, "subseed_strength: ignored"),
        ({"alwayson_scripts": {"ADetailer": {}}}, "alwayson_scripts: ignored"),
        ({"override_settings": {"samples_format": "tiff"}}, "samples_format tiff: unknown"),
        ({"negative_prompt": "bad <lora:ink:1>"}, "<lora:ink:1>: it is left out"),
        ({"prompt": "<hypernet:old:1>"}, "<hypernet:old:1>: it is left out"),
    ],
)
def test_what_is_left_out_is_told(body: dict[str, Any], note: str) -> None:
    found = wish(**body)
    assert len(found.notes) == 1
    assert found.notes[0].startswith(note)
    assert not found.errors


@pytest.mark.parametrize(
    "body", [{"styles": ["None"]}, {"hr_prompt": ""}, {"tiling": False}, {"subseed_strength": 0}]
)
def test_what_says_nothing_is_not_worth_a_note(body: dict[str, Any]) -> None:
    assert not wish(**body).notes


@pytest.mark.parametrize(
    ("card", "body", "hires"),
    [
        (LARGE, {"width": 832, "height": 1216, "hr_scale": 1.25}, {"scale": 1.25}),
        (LARGE, {"width": 832, "height": 1216}, {"scale": 1.52}),  # 2 would be too large
        (LARGE, {"width": 768, "height": 768, "hr_resize_x": 1152, "hr_resize_y": 1152,
                 "hr_second_pass_steps": 12, "denoising_strength": 0.4, "hr_upscaler": "None"},
         {"scale": 1.5, "steps": 12, "strength": 0.4}),
        (LARGE, {"width": 768, "height": 768, "hr_resize_y": 1536}, {"scale": 2.0}),
        (LARGE, {"hr_scale": 2.5}, {"scale": 1.25}),  # 512 wanted 2.5 times, from 1024
        (TINY, {"hr_upscaler": "Latent (nearest)"}, {"scale": 2.0, "upscaler": "latent"}),
        (TINY, {"hr_upscaler": "R-ESRGAN 4x+"}, {"scale": 2.0, "upscaler": "lanczos"}),
    ],
)  # fmt: skip
def test_a_second_pass_ends_at_the_size_that_is_meant(
    card: Any, body: dict[str, Any], hires: dict[str, Any]
) -> None:
    found = wish(card, enable_hr=True, **body)
    assert found.fields["hires"] == hires
    request_type(card).model_validate(found.fields)


def test_no_second_pass_to_a_size_that_the_first_has() -> None:
    found = wish(enable_hr=True, hr_scale=2)
    assert found.fields == SILENT
    assert found.notes == ["second pass: left out; the first pass is already 1024x1024"]


def test_a_picture_to_start_from() -> None:
    found = wish_from_picture(denoising_strength=0.4, width=512, height=512, mask="m")
    assert found.fields == SILENT | {"init_image": "x", "strength": 0.4, "mask": "m"}
    found = wish_from_picture(init_images=["x", "y"], width=1024, height=768)
    assert found.fields == SILENT | {"init_image": "x", "resolution": "1024x768"}
    assert found.notes == ["2 init_images: using the first"]


@pytest.mark.parametrize("images", [None, [], [""]])
def test_a_picture_that_is_missing(images: list[str] | None) -> None:
    found = wish_from_picture(init_images=images)
    assert [error["loc"] for error in found.errors] == [("body", "init_images")]
    assert found.errors[0]["msg"] == "Init image not found"


def test_an_infotext_fills_what_is_left_open() -> None:
    text = (
        "1girl <lora:ink:0.7>\nNegative prompt: bad\nSteps: 24, Sampler: Euler a, CFG scale: 5, "
        "Seed: 9, Size: 640x960"
    )
    found = wish(infotext=text, steps=12)
    assert found.fields == SILENT | {
        "prompt": "1girl",
        "negative_prompt": "bad",
        "steps": 12,
        "sampler": "euler_ancestral",
        "cfg_scale": 5.0,
        "seed": 9,
        "resolution": "640x960",
        "loras": [{"name": "anima/ink", "weight": 0.7}],
    }
    other = wish(infotext=text, prompt="a cat", seed=-1, sampler_name="Heun", width=768, height=768)
    assert other.fields == SILENT | {
        "prompt": "a cat",
        "negative_prompt": "bad",
        "steps": 24,
        "sampler": "heun",
        "cfg_scale": 5.0,
        "seed": None,
        "resolution": "768x768",
    }
    tiny = wish(TINY, infotext=text, enable_hr=True)
    assert tiny.fields["resolution"] == "112x144", "a size of the card's, and the second pass knows"


def test_wrong_fields_are_all_told_of() -> None:
    found = wish(sampler_name="LMS", script_name="X/Y/Z plot")
    assert [error["loc"][1] for error in found.errors] == ["sampler_name", "script_name"]
    assert found.errors[0]["msg"].startswith("Sampler not found. Available: ER SDE")


def test_errors_of_our_fields_have_the_names_of_theirs() -> None:
    places = [
        ("body", "num_images"),
        ("body", "hires", "scale"),
        ("body", "hires", "strength"),
        ("body", "loras", 0, "name"),
        ("body", "steps"),
        ("body", "init_image"),
    ]
    errors = to_a1111_names([{"loc": place, "msg": "wrong"} for place in places])
    assert [error["loc"][1] for error in errors] == [
        "batch_size", "hr_scale", "denoising_strength", "prompt", "steps", "init_images",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "kirazuri-tiny",
        "kirazuri-tiny.safetensors",
        "Kirazuri Tiny",
        "kirazuri-tiny.safetensors [9f86d08188]",
        "diffusion_models\\kirazuri-tiny.safetensors",
    ],
)
def test_the_checkpoint_by_its_names(text: str) -> None:
    check_checkpoint(text, TINY)
    assert checkpoint_title(TINY) == "kirazuri-tiny.safetensors"
    with pytest.raises(UnknownModel, match="not found; the available model is 'kirazuri-anima-v1"):
        check_checkpoint(text, LARGE)
    with pytest.raises(UnknownModel):
        wish(override_settings={"sd_model_checkpoint": text})

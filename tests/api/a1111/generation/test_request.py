"""Translation of A1111 fields into fields of `POST /generate`."""

import json
from collections.abc import Collection
from typing import Any

import pytest
from pydantic import ValidationError

from api.a1111.generation.request import A1111Request, parse_request, to_a1111_names
from api.a1111.generation.request_fields import ImageToImage, TextToImage
from api.http.errors import UnknownModel
from model.card import load_card
from model.card_request import request_type
from model.request import find_lora

TINY, LARGE = load_card("kirazuri-tiny"), load_card("kirazuri-v1")
LORAS = ("watercolor", "anima/ink")
EMPTY = {"prompt": " ", "previews": True}


def parse(card: Any = LARGE, **body: Any) -> A1111Request:
    return parse_request(TextToImage.model_validate(body), card, LORAS)


def parse_with_image(**body: Any) -> A1111Request:
    body = {"init_images": ["x"], **body}
    return parse_request(ImageToImage.model_validate(body), LARGE, LORAS)


def test_empty_requests_use_all_defaults() -> None:
    assert parse() == A1111Request(EMPTY, [], [])
    blank = {"seed": "", "steps": "", "sampler_name": "", "scheduler": "", "styles": None}
    assert parse(**blank) == A1111Request(EMPTY, [], [])


def test_unknown_fields_are_ignored() -> None:
    body = {"url": "http://me", "auth": "user:secret", "s_tmax": None, "hr_cfg": 1.0}
    assert parse(**body) == A1111Request(EMPTY, [], [])


def test_defaults_that_clients_always_send() -> None:
    parsed = parse(
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
    assert parsed.fields == {
        "prompt": "1girl",
        "negative_prompt": "",
        "sampler": "euler_ancestral",
        "seed": None,
        "steps": 20,
        "cfg_scale": 7.0,
        "num_images": 1,
        "previews": True,
    }
    assert not parsed.notes


TRANSLATIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
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
    ({"prompt": "<lora:anima\\ink:0.5><lora:ink.safetensors:0.25><lora:ANIMA/INK.SAFETENSORS:1>"},
     {"prompt": " ", "loras": [{"name": "anima/ink", "weight": 1.75}]}),
]  # fmt: skip


def test_fields_are_translated() -> None:
    request_model = request_type(LARGE, lambda: LORAS)
    for body, fields in TRANSLATIONS:
        parsed = parse(**body)
        assert parsed.fields == EMPTY | fields, body
        assert not parsed.errors, body
        request_model.model_validate(parsed.fields)


def test_changes_and_unsupported_fields_are_noted() -> None:
    notes: list[tuple[dict[str, Any], str]] = [
        ({"scheduler": "Align Your Steps"}, "scheduler Align Your Steps: unknown"),
        ({"width": 600, "height": 800}, "size 600x800: using 608x800, the nearest"),
        ({"override_settings": {"samples_format": "tiff"}}, "samples_format tiff: unknown"),
        ({"negative_prompt": "bad <lora:ink:1>"}, "<lora:ink:1>: "),
        ({"prompt": "<hypernet:old:1>"}, "<hypernet:old:1>: "),
    ]
    for body, start in notes:
        parsed = parse(**body)
        (note,) = parsed.notes
        assert note.startswith(start)
        assert not parsed.errors


def test_a_seed_that_is_too_large_is_folded_with_a_note() -> None:
    for seed, note in (
        (2**64 - 1, f"seed {2**64 - 1}: using {2**53 - 1}, its last 53 bits"),
        ("9007199254740999", "seed 9007199254740999: using 7, its last 53 bits"),
    ):
        parsed = parse(seed=seed)
        assert parsed.notes == [note]
        request_type(LARGE).model_validate(parsed.fields)
    assert not parse(seed=2**53 - 1).notes


def test_second_pass_ends_at_the_requested_size() -> None:
    cases: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        (LARGE, {"width": 832, "height": 1216, "hr_scale": 1.25}, {"scale": 1.25}),
        (LARGE, {"width": 832, "height": 1216}, {"scale": 1.52}),  # 2 is too large
        (LARGE, {"width": 768, "height": 768, "hr_resize_x": 1152, "hr_resize_y": 1152,
                 "hr_second_pass_steps": 12, "denoising_strength": 0.4, "hr_upscaler": "None"},
         {"scale": 1.5, "steps": 12, "strength": 0.4}),
        (LARGE, {"width": 768, "height": 768, "hr_resize_y": 1536}, {"scale": 2.0}),
        (LARGE, {"hr_scale": 2.5}, {"scale": 1.25}),  # 2.5 times 512, from 1024
        (TINY, {"hr_upscaler": "Latent (nearest)"}, {"scale": 2.0, "upscaler": "latent"}),
        (TINY, {"hr_upscaler": "R-ESRGAN 4x+"}, {"scale": 2.0, "upscaler": "lanczos"}),
    ]  # fmt: skip
    for card, body, hires in cases:
        parsed = parse(card, enable_hr=True, **body)
        assert parsed.fields["hires"] == hires, body
        request_type(card).model_validate(parsed.fields)


def test_second_pass_is_left_out_if_the_first_has_the_size() -> None:
    parsed = parse(enable_hr=True, hr_scale=2)
    assert parsed.fields == EMPTY
    assert parsed.notes == ["second pass: left out; the first pass is already 1024x1024"]


def test_initial_image() -> None:
    parsed = parse_with_image(denoising_strength=0.4, width=512, height=512, mask="m")
    assert parsed.fields == EMPTY | {"init_image": "x", "strength": 0.4, "mask": "m"}
    parsed = parse_with_image(init_images=["x", "y"], width=1024, height=768)
    assert parsed.fields == EMPTY | {"init_image": "x", "resolution": "1024x768"}
    assert parsed.notes == ["2 init_images: using the first"]


def test_initial_image_is_required() -> None:
    for images in (None, [], [""]):
        (error,) = parse_with_image(init_images=images).errors
        assert (error["loc"], error["msg"]) == (("body", "init_images"), "Init image not found")


def test_infotext_provides_missing_fields() -> None:
    text = (
        "1girl <lora:ink:0.7>\nNegative prompt: bad\nSteps: 24, Sampler: Euler a, CFG scale: 5, "
        "Seed: 9, Size: 640x960"
    )
    parsed = parse(infotext=text, steps=12)
    assert parsed.fields == EMPTY | {
        "prompt": "1girl",
        "negative_prompt": "bad",
        "steps": 12,
        "sampler": "euler_ancestral",
        "cfg_scale": 5.0,
        "seed": 9,
        "resolution": "640x960",
        "loras": [{"name": "anima/ink", "weight": 0.7}],
    }
    parsed = parse(
        infotext=text, prompt="a cat", seed=-1, sampler_name="Heun", width=768, height=768
    )
    assert parsed.fields == EMPTY | {
        "prompt": "a cat",
        "negative_prompt": "bad",
        "steps": 24,
        "sampler": "heun",
        "cfg_scale": 5.0,
        "seed": None,
        "resolution": "768x768",
    }
    tiny = parse(TINY, infotext=text, enable_hr=True)
    assert tiny.fields["resolution"] == "112x144", "adjusted to the card before the second pass"


def test_infotext_of_another_program_is_read() -> None:
    parameters = {"prompt": "a cat", "seed": 9, "steps": 24, "width": 640, "height": 960}
    parsed = parse(infotext=json.dumps({"sui_image_params": parameters}))
    assert parsed.errors == []
    assert (parsed.fields["prompt"], parsed.fields["seed"]) == ("a cat", 9)
    assert [note for note in parsed.notes if note.startswith("sampler:")]


def test_infotext_that_cannot_be_read_is_an_error() -> None:
    single_line = "1girl,.Negative prompt: bad.Steps: 20, Sampler: Euler a, CFG scale: 4, Seed: 1"
    for text, prompt, reason in (
        (single_line, None, "not an infotext"), (single_line, "a cat", "not an infotext"),
        ('{"a": 1}', "a cat", "not supported"), ("Steps: 20, Seed: 5", None, "no prompt"),
    ):  # fmt: skip
        (error,) = parse(infotext=text, **({"prompt": prompt} if prompt else {})).errors
        assert (error["loc"], reason in error["msg"]) == (("body", "infotext"), True), error
    assert parse(infotext="Steps: 20, Seed: 5", prompt="a cat").errors == []


def test_all_invalid_fields_are_reported() -> None:
    parsed = parse(sampler_name="LMS", script_name="X/Y/Z plot")
    assert [error["loc"][1] for error in parsed.errors] == ["sampler_name", "script_name"]
    assert parsed.errors[0]["msg"].startswith("Sampler not found. Available: ER SDE")


def test_another_checkpoint_is_refused() -> None:
    with pytest.raises(UnknownModel):
        parse(override_settings={"sd_model_checkpoint": "kirazuri-tiny"})


def test_errors_use_the_a1111_names() -> None:
    names = {
        ("num_images",): "batch_size",
        ("hires", "scale"): "hr_scale",
        ("hires", "strength"): "denoising_strength",
        ("loras", 0, "name"): "prompt",
        ("steps",): "steps",
        ("init_image",): "init_images",
    }
    errors = to_a1111_names([{"loc": ("body", *path), "msg": "wrong"} for path in names])
    assert [error["loc"][1] for error in errors] == list(names.values())


def test_a_lora_is_found_by_the_name_that_its_training_gave_it() -> None:
    body = TextToImage.model_validate({"prompt": "1girl <lora:My_Alias:0.7>"})
    parsed = parse_request(body, TINY, LORAS, {"anima/ink": "my_alias"})
    assert parsed.fields["loras"] == [{"name": "anima/ink", "weight": 0.7}]
    assert "LoRA My_Alias: anima/ink is used, which was trained as this" in parsed.notes
    twice = parse_request(body, TINY, LORAS, dict.fromkeys(LORAS, "my_alias"))
    assert twice.fields["loras"] == [{"name": "My_Alias", "weight": 0.7}]


def test_few_loras_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a comparison with every file; no request may have more than eight."""
    wanted: list[str] = []

    def find(name: str, names: Collection[str]) -> str | None:
        wanted.append(name)
        return find_lora(name, names)

    monkeypatch.setattr("api.a1111.generation.request.find_lora", find)
    many = "".join(f"<lora:a{number}:1>" for number in range(900))
    parsed = parse(prompt=f"1girl <lora:{'x' * 1000}:1> <lora:ink:1>{many}")
    assert len(wanted) <= 32
    assert max(map(len, wanted)) <= 200
    assert len(parsed.fields["loras"]) == 902
    assert {"name": "anima/ink", "weight": 1.0} in parsed.fields["loras"]


def test_texts_are_too_long_before_they_are_read() -> None:
    for name in ("prompt", "negative_prompt", "infotext"):
        with pytest.raises(ValidationError, match="at most 200000 characters"):
            parse(**{name: "a" * 200_001})

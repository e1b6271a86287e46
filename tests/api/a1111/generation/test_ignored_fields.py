"""Fields of the web UI that are not followed: each is noted if it would change the image."""

import json
from collections.abc import Callable
from typing import Any

from api.a1111.generation.request import mask_blur_of, parse_request
from api.a1111.generation.request_fields import ImageToImage, TextToImage
from model.card import load_card
from tests.support.a1111_clients import FILE
from tests.support.cases import check_all
from tests.support.manual_worker import ManualWorker
from tests.support.pending_call import PendingCall

CARD = load_card("kirazuri-v1")
SECOND_PASS = {"enable_hr": True, "width": 832, "height": 1216, "hr_scale": 1.25}
IMAGE = {"init_images": ["x"]}
MASKED = {**IMAGE, "mask": "m"}

SHARED: list[tuple[str, Any]] = [
    ("styles", ["None", "Film"]),
    ("alwayson_scripts", {"ADetailer": {}}),
    ("subseed_strength", 0.2),
    ("seed_resize_from_h", 512),
    ("seed_resize_from_w", 512),
    ("restore_faces", True),
    ("tiling", True),
    ("eta", 0),
    ("s_churn", 0.5),
    ("s_tmin", 0.5),
    ("s_tmax", 10),
    ("s_noise", 1.1),
    ("s_min_uncond", 1),
    ("refiner_checkpoint", "other.safetensors"),
    ("token_merging_ratio", 0.5),
    ("disable_extra_networks", True),
    ("override_settings_restore_afterwards", False),
    ("do_not_save_samples", True),
    ("force_task_id", "task(1)"),
]
CASES: list[tuple[dict[str, Any], str, Any]] = [
    *[({}, name, value) for name, value in SHARED],
    *[(IMAGE, name, value) for name, value in SHARED],
    (SECOND_PASS, "token_merging_ratio_hr", 0.5),
    (SECOND_PASS, "firstpass_image", "x"),
    (SECOND_PASS, "firstphase_width", 512),
    (SECOND_PASS, "firstphase_height", 512),
    (SECOND_PASS, "hr_prompt", "a cat"),
    (SECOND_PASS, "hr_negative_prompt", "blurry"),
    (SECOND_PASS, "hr_sampler_name", "Euler"),
    (SECOND_PASS, "hr_scheduler", "Karras"),
    (SECOND_PASS, "hr_checkpoint_name", "other"),
    *[(IMAGE, "resize_mode", mode) for mode in (0, 2, 3)],
    (IMAGE, "image_cfg_scale", 1.5),
    (IMAGE, "initial_noise_multiplier", 0.5),
    (IMAGE, "latent_mask", "x"),
    *[(MASKED, "inpainting_fill", fill) for fill in (0, 2, 3)],
    (MASKED, "inpaint_full_res", True),
    (MASKED, "mask_round", True),
]


def notes(**body: Any) -> list[str]:
    model = ImageToImage if "init_images" in body else TextToImage
    return parse_request(model.model_validate(body), CARD, ()).notes


def test_each_field_with_an_effect_is_noted() -> None:
    def check(body: dict[str, Any], name: str, value: Any) -> None:
        assert not notes(**body)
        (note,) = notes(**body, **{name: value})
        assert note.startswith(f"{name}: ignored, ")

    check_all(check, CASES)


def test_fields_that_depend_on_another_are_noted_with_it() -> None:
    def check(body: dict[str, Any], other: str, name: str, value: Any) -> None:
        assert not notes(**{**body, name: value})
        assert any(
            note.startswith(f"{name}: ignored, ")
            for note in notes(**body, **{other: 1, name: value})
        )

    check_all(
        check,
        [
            ({}, "subseed_strength", "subseed", 7),
            ({}, "refiner_checkpoint", "refiner_switch_at", 0.8),
            (MASKED, "inpaint_full_res", "inpaint_full_res_padding", 32),
            ({}, "enable_hr", "hr_prompt", "a cat"),
            (IMAGE, "mask", "inpainting_fill", 0),
            (IMAGE, "mask", "inpaint_full_res", True),
        ],
    )


def test_values_without_an_effect_are_not_noted() -> None:
    def check(body: dict[str, Any], name: str, value: Any) -> None:
        assert not notes(**body, **{name: value})

    check_all(
        check,
        [
            ({}, "styles", ["None", ""]),
            ({}, "alwayson_scripts", {}),
            ({}, "subseed", -1),
            ({}, "seed_resize_from_h", -1),
            ({}, "eta", 1.0),
            ({}, "s_noise", 1),
            ({}, "refiner_checkpoint", "None"),
            ({}, "override_settings_restore_afterwards", True),
            ({}, "do_not_save_grid", True),
            ({}, "save_images", True),
            ({}, "denoising_strength", 0.75),
            (SECOND_PASS, "hr_sampler_name", "Use same sampler"),
            (SECOND_PASS, "hr_scheduler", "Automatic"),
            (SECOND_PASS, "hr_checkpoint_name", "Use same checkpoint"),
            (SECOND_PASS, "hr_prompt", ""),
            (IMAGE, "resize_mode", 1),
            (MASKED, "inpainting_fill", 1),
            (MASKED, "mask_round", False),
            (MASKED, "mask_blur_x", 4),
        ],
    )


def test_each_setting_with_an_effect_is_noted() -> None:
    neutral = {
        "CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "filter_nsfw": False,
        "forge_additional_modules": [], "samples_format": "webp", "jpeg_quality": 90,
        "live_previews_enable": True, "sd_model_checkpoint": "kirazuri-v1",
    }  # fmt: skip
    assert not notes(override_settings=neutral)
    ignored = {"CLIP_stop_at_last_layers": 2, "sd_vae": "x", "eta_noise_seed_delta": 31337}
    (note,) = notes(override_settings=neutral | ignored)
    assert note == (
        "override_settings: CLIP_stop_at_last_layers, sd_vae, eta_noise_seed_delta: ignored, not "
        "supported"
    )
    (note,) = notes(override_settings={f"s{number}": 1 for number in range(1000)})
    assert note.endswith("s9, …: ignored, not supported")


def test_the_quality_of_a_file_is_a_number() -> None:
    for quality, expected in (("80", 80), (True, 1), (200, 100), (80.9, 80)):
        body = TextToImage.model_validate({"override_settings": {"jpeg_quality": quality}})
        assert parse_request(body, CARD, ()).fields["image_quality"] == expected
    (note,) = notes(override_settings={"jpeg_quality": "high"})
    assert note.startswith("jpeg_quality high: ")


def test_blurs_of_both_directions() -> None:
    def blur(**body: Any) -> tuple[int, list[str]]:
        return mask_blur_of(ImageToImage.model_validate({**MASKED, **body})), notes(
            **MASKED, **body
        )

    assert blur() == (4, [])
    assert blur(mask_blur_x=8, mask_blur_y=8) == (8, [])
    assert blur(mask_blur=2, mask_blur_x=2) == (2, [])
    assert blur(mask_blur_x=0, mask_blur_y=0) == (0, [])
    assert blur(mask_blur_x=8) == (4, ["mask_blur_x 8: using 4 in both directions"])
    assert blur(mask_blur=2, mask_blur_x=8, mask_blur_y=9) == (
        2,
        [f"mask_blur_{axis}: using 2 in both directions" for axis in ("x 8", "y 9")],
    )


def test_info_has_the_notes(
    worker: ManualWorker, start_call: Callable[..., tuple[PendingCall, str]]
) -> None:
    call, job_id = start_call(seed=2**60, restore_faces=1, eta="0.3", override_settings=[["a", 1]])
    worker.claim(job_id)
    worker.finish(job_id, FILE)
    warnings = json.loads(call.response().json()["info"])["warnings"]
    assert warnings[:4] == [
        "seed 1152921504606846976: using 0, its last 53 bits",
        "override_settings: a: ignored, not supported",
        "restore_faces: ignored, not supported",
        "eta: ignored, the sampler uses its default",
    ]

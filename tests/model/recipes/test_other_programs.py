"""Every setting of other programs' JSON is read, known to have no effect, or noted by its name."""

import json
from typing import Any

import pytest

from model.recipes.imported import ImportedRequest
from model.recipes.reading import read_text


def swarmui(**changes: Any) -> dict[str, Any]:
    params = {
        "prompt": "1girl", "negativeprompt": "bad", "model": "anima", "images": 4, "seed": 5,
        "steps": 20, "cfgscale": 5, "aspectratio": "1:1", "width": 64, "height": 64,
        "sampler": "euler", "scheduler": "simple", "automaticvae": True, "batchsize": "1",
        "swarm_version": "0.9.6", **changes,
    }  # fmt: skip
    return {"sui_image_params": params, "sui_extra_data": {"date": "today"}}


def invokeai(**changes: Any) -> dict[str, Any]:
    return {
        "generation_mode": "txt2img", "positive_prompt": "1girl", "negative_prompt": "bad",
        "width": 64, "height": 64, "seed": 5, "cfg_scale": 5, "steps": 20, "scheduler": "euler_k",
        "loras": [], "app_version": "6.0", "rand_device": "cpu", **changes,
    }  # fmt: skip


def novelai(**changes: Any) -> dict[str, Any]:
    comment = {
        "prompt": "1girl", "uc": "bad", "steps": 20, "height": 64, "width": 64, "scale": 5,
        "uncond_scale": 0.0, "cfg_rescale": 0.0, "seed": 5, "n_samples": 1, "stream": "none",
        "noise_schedule": "karras", "sampler": "k_euler_ancestral", "controlnet_strength": 1.0,
        "dynamic_thresholding": False, "dynamic_thresholding_percentile": 0.999,
        "deliberate_euler_ancestral_bug": False, "prefer_brownian": True, "version": 1,
        "cfg_sched_eligibility": "enable_for_post_summer_samplers", "signed_hash": "x", **changes,
    }  # fmt: skip
    return {"Software": "NovelAI", "Source": "V4.5", "Comment": json.dumps(comment)}


def fooocus(**changes: Any) -> dict[str, Any]:
    return {
        "prompt": "1girl", "negative_prompt": "bad", "seed": "5", "steps": 20, "guidance_scale": 5,
        "sampler": "euler", "scheduler": "karras", "resolution": "(64, 64)", "base_model": "a",
        "refiner_model": "None", "refiner_switch": 0.5, "vae": "Default (model)",
        "metadata_scheme": "fooocus", **changes,
    }  # fmt: skip


def draw_things(**changes: Any) -> dict[str, Any]:
    return {
        "c": "1girl", "uc": "bad", "seed": 5, "steps": 20, "scale": 5, "sampler": "Euler Karras",
        "size": "64x64", "strength": 1, "shift": 3, "model": "a.ckpt", "mask_blur": 1.5,
        "seed_mode": "Torch CPU Compatible", "lora": [{"model": "ink.ckpt", "weight": 0.5}],
        **changes,
    }  # fmt: skip


PLAIN_OPTIONS = {
    "aestheticScore": 6, "batchCount": 1, "batchSize": 1, "cfgZeroInitSteps": 0,
    "cfgZeroStar": False, "clipSkip": 1, "clipWeight": 1, "controls": [], "guidanceScale": 5,
    "hiresFix": False, "hiresFixWidth": 576, "hiresFixStrength": 0.7, "refinerStart": 0.85,
    "loras": [{"file": "ink.ckpt", "weight": 0.5, "mode": "all"}], "seed": 5, "steps": 20,
    "compressionArtifacts": "disabled", "sampler": 10, "seedMode": 2, "stage2Steps": 10,
    "resolutionDependentShift": False, "teaCache": False, "teaCacheStart": 5,
    "tiledDecoding": False, "upscaler": None, "upscalerScaleFactor": 0, "t5TextEncoder": True,
    "strength": 1,
}  # fmt: skip
"""`v2` of Draw Things, as it writes it if every option is off."""


def read(data: dict[str, Any]) -> ImportedRequest:
    return read_text(json.dumps(data)).imported


@pytest.mark.parametrize(
    "data", [swarmui(), invokeai(), novelai(), fooocus(), draw_things(v2=PLAIN_OPTIONS)]
)
def test_usual_values_are_not_noted(data: dict[str, Any]) -> None:
    found = read(data)
    assert found.fields["prompt"] == "1girl"
    assert [note for note in found.notes if not note.startswith("scheduler: not in")] == []


SETTINGS: list[tuple[dict[str, Any], str]] = [
    (swarmui(vae="foo.safetensors"), "vae: foo.safetensors: not supported"),
    (swarmui(batchsize=2), "batchsize: 2: not supported"),
    (swarmui(clipstopatlayer=-2), "clipstopatlayer: -2: not supported"),
    (swarmui() | {"sui_other": {"a": 1}}, 'sui_other: {"a": 1}: not supported'),
    (swarmui(prompt="1girl <Random:a|b>"), "prompt <Random:a|b>: left out"),
    (swarmui(prompt="1girl <break>"), "prompt <break>: left out"),
    (invokeai(vae={"name": "v"}), 'vae: {"name": "v"}: not supported'),
    (invokeai(rand_device="cuda"), "rand_device: cuda: not supported"),
    (invokeai(canvas_v2_metadata={"controlLayers": [{}]}), "canvas_v2_metadata controlLayers"),
    (novelai(uncond_scale=1.5), "uncond_scale: 1.5: not supported"),
    (novelai(n_samples=4), "n_samples: 4: not supported"),
    (novelai(legacy=True), "legacy: true: not supported"),
    (novelai(cfg_sched_eligibility="none"), "cfg_sched_eligibility: none: not supported"),
    (novelai(deliberate_euler_ancestral_bug=True), "deliberate_euler_ancestral_bug True: not"),
    (novelai(prompt="1girl | 1boy"), "prompt: '|' mixes or chooses texts"),
    (novelai(v4_prompt={"caption": {"base_caption": "2girls"}}), "v4_prompt 2girls: differs"),
    (novelai(v4_negative_prompt={"legacy_uc": True}), "v4_negative_prompt legacy_uc: true: not"),
    (fooocus(vae="foo.vae"), "vae: foo.vae: not supported"),
    (fooocus(refiner_model="r"), "refiner_model: r: not supported"),
    (draw_things(seed_mode="Scale Alike"), "seed_mode: Scale Alike: not supported"),
    *(
        (draw_things(v2=PLAIN_OPTIONS | {name: value}), f"v2 {name}")
        for name, value in {
            "hiresFix": True, "refinerModel": "x.ckpt", "clipSkip": 2, "controls": [{"file": "c"}],
            "loras": [{"file": "other.ckpt", "weight": 1}], "upscaler": "4x", "cfgZeroStar": True,
            "tiledDiffusion": True, "teaCache": True, "sharpness": 3, "zeroNegativePrompt": True,
            "steps": 30, "guidanceScale": 7, "new_option": 1,
        }.items()
    ),
]  # fmt: skip


def test_a_setting_that_changes_the_image_is_noted_by_its_name() -> None:
    failures = []
    for data, expected in SETTINGS:
        notes = [note for note in read(data).notes if not note.startswith("scheduler: not in")]
        if len(notes) != 1 or not notes[0].startswith(expected):
            failures.append((expected, notes))
    assert failures == []


def test_weights_of_invokeai_are_noted() -> None:
    for text, pieces in {
        "cat++, hat--, 1girl": ("'cat++'", "'hat--'"),
        "cat+ (blue hat)1.3": ("'cat+'", "brackets"),
        '("a", "b").blend(1, 0.5)': ("brackets", "'.blend('"),
        '("a", "b").and()': ("'.and('",),
    }.items():
        for field in ("positive_prompt", "negative_prompt"):
            notes = "\n".join(read(invokeai(**{field: text})).notes)
            name = field.replace("positive_", "")
            missing = [piece for piece in pieces if f"{name}: {piece} as a weight" not in notes]
            assert missing == [], (text, notes)
    for text in ("1girl, c++ code, blue-eyed, x-ray", "a - b, 1+1"):
        plain = read(invokeai(positive_prompt=text)).notes
        assert [note for note in plain if "c++" not in note] == [], text


def test_loras_that_invokeai_did_not_use_are_left_out() -> None:
    lora = {"model": {"name": "ink"}, "weight": 0.5}
    found = read(invokeai(loras=[lora, {**lora, "model": {"name": "hat"}, "is_enabled": False}]))
    assert found.fields["loras"] == [{"name": "ink", "weight": 0.5}]


def test_weights_of_novelai_beyond_the_limit_are_noted() -> None:
    found = read(novelai(prompt="1girl, 20::smile::", uc="-30::hat::"))
    assert found.fields["prompt"] == "1girl, (smile:10)"
    limit = "weights are limited to -10 to 10"
    assert f"prompt weight 20: {limit}" in found.notes
    assert f"negative_prompt weight -30: {limit}" in found.notes


def test_tags_in_capital_letters_are_no_loras() -> None:
    found = read(swarmui(prompt="1girl <LORA:ink:1>"))
    assert (found.fields["prompt"], found.fields.get("loras")) == ("1girl", None)
    assert found.notes == ["<LORA:ink:1>: left out; the name of the tag is in small letters"]

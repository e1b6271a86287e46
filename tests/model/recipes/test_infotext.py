"""Infotext: ours can be read again, that of other programs is imported, the rest is noted."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.recipes.aliases import SamplerAlias, find_sampler, find_schedule
from model.recipes.infotext import prompt_with_loras, read_infotext, write_infotext
from model.recipes.infotext_syntax import MAX_INFOTEXT_CHARS, is_infotext, parse_parameters
from model.recipes.recipe import Recipe
from model.request import find_lora
from model.sampler_catalog import SAMPLER_CATALOG, SCHEDULE_DISPLAY_NAMES, UPSCALER_DISPLAY_NAMES
from tests.support.growth import grows_linearly
from tests.support.requests import make_request

RECIPE = Recipe(card="kirazuri-v1", checkpoint="0123456789abcdef" * 4, service="k 0.1")

FORGE = """masterpiece, 1girl, oil painting \\(medium\\), (blue hair:1.2)
smile
Negative prompt: worst quality, low quality,
blurry
Steps: 32, Sampler: ER SDE, Schedule type: Beta, CFG scale: 4, Shift: 3, Seed: 123456789, Size: \
832x1216, Model hash: 0123456789, Model: kirazuri-v1, Clip skip: 2, Beta schedule alpha: 0.6, \
Version: f2.0.1v1.10.1-previous-665-gae278f79"""

HIRES = """1girl
Negative prompt: bad
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: \
abcdef0123, Denoising strength: 0.45, Hires upscale: 1.5, Hires steps: 10, Hires upscaler: \
R-ESRGAN 4x+ Anime6B, Lora hashes: "style: 1a2b3c, other: 4d5e6f", Hashes: {"model": "abcdef0123", \
"lora:style": "1a2b3c"}, Version: v1.6.0"""


def test_an_image_of_another_web_ui() -> None:
    imported = read_infotext(FORGE)
    assert imported.fields == {
        "prompt": "masterpiece, 1girl, oil painting \\(medium\\), (blue hair:1.2)\nsmile",
        "negative_prompt": "worst quality, low quality,\nblurry",
        "steps": 32,
        "sampler": "er_sde",
        "scheduler": "beta",
        "cfg_scale": 4.0,
        "seed": 123456789,
        "resolution": "832x1216",
    }
    assert (imported.checkpoint, imported.model) == ("0123456789", "kirazuri-v1")
    assert imported.notes == [
        f"{pair}: not supported"
        for pair in ("shift: 3", "clip skip: 2", "beta schedule alpha: 0.6")
    ]


def test_a_second_pass_of_another_web_ui() -> None:
    imported = read_infotext(HIRES)
    assert (imported.fields["sampler"], imported.fields["scheduler"]) == ("dpmpp_2m", "karras")
    assert imported.fields["hires"] == {
        "scale": 1.5,
        "steps": 10,
        "strength": 0.45,
        "upscaler": "lanczos",
    }
    assert imported.notes == [
        "LoRA other: left out because the text does not say its weight",
        "LoRA style: left out because the text does not say its weight",
        "upscaler R-ESRGAN 4x+ Anime6B: not offered; lanczos is used instead",
    ]
    odd = read_infotext("a\nSteps: 4, Hires resize: 8x8, Hires prompt: b, Denoising strength: 0.5")
    assert "hires" not in odd.fields
    assert len(odd.notes) == 3


@pytest.mark.parametrize("is_from_an_image", [False, True])
@pytest.mark.parametrize("upscaler", [None, *UPSCALER_DISPLAY_NAMES])
def test_edits_can_be_read_again(is_from_an_image: bool, upscaler: str | None) -> None:
    changes: dict[str, Any] = {}
    if is_from_an_image:
        changes |= {"init_image": f"{'0' * 40}.png", "mask": f"{'1' * 40}.png", "strength": 0.35}
    if upscaler:
        hires = {"scale": 1.25, "steps": 7, "strength": 0.55, "upscaler": upscaler}
        changes["hires"] = hires
        resolved: dict[str, Any] = {**hires, "width": 80, "height": 80}
        request = make_request(**{**changes, "hires": resolved})
    else:
        request = make_request(**changes)
    imported = read_infotext(write_infotext(request, RECIPE, seed=1))
    assert imported.notes == []
    found = {
        name: imported.fields.get(name) for name in ("init_image", "mask", "strength", "hires")
    }
    assert {name: value for name, value in found.items() if value is not None} == changes


def test_a_strength_without_second_pass_means_an_input_image() -> None:
    text = "1girl\nSteps: 20, Sampler: Euler a, CFG scale: 7, Denoising strength: 0.6"
    imported = read_infotext(text)
    assert imported.fields == {
        "prompt": "1girl",
        "negative_prompt": "",
        "steps": 20,
        "sampler": "euler_ancestral",
        "cfg_scale": 7.0,
    }
    assert "made from another image" in imported.notes[0]


def test_unusual_texts() -> None:
    for text, fields, notes in (
        ("a\nSize: 8x8, Seed: 1, Steps: 2", {"prompt": "a", "resolution": "8x8", "steps": 2}, 0),
        ("a\nb\nSteps: 5", {"prompt": "a\nb", "steps": 5}, 0),
        ("Steps: of a dance\nSteps: 5", {"prompt": "Steps: of a dance", "steps": 5}, 0),
        ("a\nSteps: 5\nTemplate: x", {"prompt": "a", "steps": 5}, 1),
        ("a\nSteps: many, Seed: -1, CFG scale: nan", {"prompt": "a"}, 3),
        ("a\nSteps: 5, Seed: 18446744073709551615", {"prompt": "a"}, 1),
        ("a\nSteps: 4.0, CFG scale: 1e3", {"steps": 4, "cfg_scale": 1000.0}, 0),
        ("a\nSteps: 4, Sampler: Magic, Schedule type: Automatic", {"steps": 4}, 2),
        ("a\nSteps: 4, Size: big", {"steps": 4}, 1),
        ("a\nSteps: 4, Sampler options: [1]", {"steps": 4, "sampler_options": None}, 1),
        ("a\nSteps: 4, Sampler options: eta", {"steps": 4, "sampler_options": None}, 1),
        (
            'a\nSteps: 4, Sampler options: {"eta": 1, "r": 2}',
            {"sampler_options": {"eta": 1, "r": 2}},
            0,
        ),
        ("a\nSteps: 4, junk, Seed: 3", {"steps": 4, "seed": 3}, 1),
        ('a\nSteps: 4, X: "1, \\"2\\": 3", Seed: 3', {"steps": 4, "seed": 3}, 1),
        ('a\nSteps: 4, X: "open, Seed: 3', {"steps": 4, "seed": 3}, 1),
    ):
        imported = read_infotext(text)
        assert {name: imported.fields.get(name) for name in fields} == fields, text
        assert len(imported.notes) == notes, (text, imported.notes)


def test_texts_without_a_known_key_are_refused() -> None:
    for text in (
        "", "just a prompt", "a\nNegative prompt: b", "a\nFoo: 1, Bar: 2, Baz: 3", "cat\nSeed: 5",
        "1girl,.Negative prompt: bad.Steps: 20, Sampler: Euler a, CFG scale: 4, Seed: 1",
        "cat\nSteps: up the hill",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not an infotext"):
            read_infotext(text)


def test_networks_of_another_web_ui() -> None:
    prompt = "1girl <lora:style:0.8>, <lyco:b/hat>, <lora:style:-0.3> <lora:c:1:0.5> <hypernet:x:1>"
    imported = read_infotext(f"{prompt}\nNegative prompt: <lora:d:1>\nSteps: 4")
    assert imported.fields["prompt"] == "1girl , ,"
    assert imported.fields["negative_prompt"] == ""
    assert imported.fields["loras"] == [
        {"name": "style", "weight": pytest.approx(0.5)},
        {"name": "b/hat", "weight": 1.0},
        {"name": "c", "weight": 1.0},
    ]
    assert [note.partition(": ")[0] for note in imported.notes] == [
        "<lora:c:1:0.5>",
        "<hypernet:x:1>",
        "<lora:d:1>",
    ]


def test_tags_with_any_arguments_are_read_or_noted() -> None:
    blocks = f"lbw={','.join('1' * 17)}:" + "x" * 50
    imported = read_infotext(f"1girl <lora:ink:0.5:1:1:1:1:1:{blocks}> <locon:hat:1>\nSteps: 4")
    assert imported.fields["prompt"] == "1girl  <locon:hat:1>"
    assert imported.fields["loras"] == [{"name": "ink", "weight": 0.5}]
    notes = "\n".join(imported.notes)
    assert "<lora:ink:0.5:1:1:1:1:1:lbw=1" in notes
    assert "<locon:hat:1>: not supported; it is plain text here" in notes


def test_our_loras_can_be_read_again() -> None:
    loras = [
        {"name": "styles/ink wash (v2)", "weight": -0.25, "sha256": "1" * 64},
        {"name": "hats", "weight": 1.5, "sha256": "2" * 64},
    ]
    text = write_infotext(make_request("1girl", loras=loras), RECIPE, seed=1)
    assert text.startswith("1girl <lora:styles/ink wash (v2):-0.25> <lora:hats:1.5>\n")
    assert 'Lora hashes: "styles/ink wash (v2): 111111111111, hats: 222222222222"' in text
    imported = read_infotext(text)
    assert imported.notes == []
    assert imported.fields["prompt"] == "1girl"
    assert imported.fields["loras"] == [
        {"name": lora["name"], "weight": lora["weight"]} for lora in loras
    ]


def test_sampler_options_can_be_read_again() -> None:
    options = {"eta": 0.5, "s_noise": 1.0, "solver_type": "heun", "max_order": 3, "simple": True}
    text = write_infotext(make_request(sampler_options=options), RECIPE, seed=1)
    assert read_infotext(text).fields["sampler_options"] == options
    for odd in ("eta=0.5", "[1]", "[" * 50_000):
        imported = read_infotext(f"a\nSteps: 4, Sampler options: {odd}")
        assert "sampler_options" not in imported.fields
        assert len(imported.notes) == 1


LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60).filter(
    lambda line: not line.startswith("Negative prompt:") and "<" not in line
)
TEXTS = st.lists(LINES, max_size=4).map("\n".join)


@given(
    prompt=TEXTS,
    negative=TEXTS,
    steps=st.integers(1, 200),
    cfg=st.floats(1, 30).map(lambda value: float(f"{value:g}")),
    sampler=st.sampled_from(sorted(SAMPLER_CATALOG)),
    scheduler=st.sampled_from(sorted(SCHEDULE_DISPLAY_NAMES)),
    seed=st.integers(0, 2**53 - 1),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(str.strip),
    options=st.dictionaries(
        st.sampled_from(["eta", "max_order", "solver_type"]),
        st.booleans() | st.integers(0, 9) | st.floats(0, 9) | st.sampled_from(["heun", "er_sde"]),
    ),
)
def test_our_infotext_can_be_read_again(
    prompt: str,
    negative: str,
    steps: int,
    cfg: float,
    sampler: str,
    scheduler: str,
    seed: int,
    name: str,
    options: dict[str, Any],
) -> None:
    request = make_request(
        prompt, negative_prompt=negative, steps=steps, cfg_scale=cfg, sampler=sampler,
        scheduler=scheduler, sampler_options=options,
    )  # fmt: skip
    recipe = RECIPE.model_copy(update={"card": name})
    imported = read_infotext(write_infotext(request, recipe, seed=seed))
    assert imported.fields == {
        "prompt": prompt,
        "negative_prompt": negative,
        "steps": steps,
        "cfg_scale": cfg,
        "sampler": sampler,
        "scheduler": scheduler,
        "seed": seed,
        "resolution": "64x64",
        **({"sampler_options": options} if options else {}),
    }
    assert imported.notes == []
    assert imported.checkpoint == RECIPE.checkpoint[:10]
    assert imported.model == name


@given(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n:,"\\<>'), max_size=400)
)
def test_any_text_can_be_read(text: str) -> None:
    imported = read_infotext(f"{text}\nSteps: 7")
    assert imported.fields["steps"] == 7
    if is_infotext(text):
        assert read_infotext(text).fields["prompt"] is not None


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z][a-z]{4,20}", fullmatch=True), st.text('abc,:"', min_size=1)
    )
)
def test_every_pair_is_noted(pairs: dict[str, str]) -> None:
    known = {"version", "model", "sampler", "hashes", "scheduler", "steps"}
    pairs = {key: value for key, value in pairs.items() if key.lower() not in known}
    line = ", ".join(f"{key}: {json.dumps(value)}" for key, value in pairs.items())
    notes = read_infotext(f"a\nSteps: 4, {line}").notes
    for key, value in list(pairs.items())[:40]:
        assert any(note.startswith(f"{key.lower()}: {value}"[:90]) for note in notes), key


def test_hostile_texts_take_linear_time() -> None:
    pieces = (
        "a", " ", "a:", "negative ", "negative prompt:",
        'a:"', 'a:"\\', '"', ",", "a b-", "<lora:", "<lora:a:", "\\", "a: ,", "\n",
     "<lora:a:1>", "Steps:", "a\nSteps: 4, ", "a:[", "a:[1,", '{"a":', "[1,", "[", 'a:[",',
    )  # fmt: skip

    def read(text: str) -> None:
        for whole in (f"{text}\nSteps: 5, Seed: 1", f"a\nSteps: 5, {text}"):
            with suppress(ValueError):  # several lines of parameters
                read_infotext(whole)

    assert [piece for piece in pieces if not grows_linearly(read, piece)] == []


def test_long_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 200000"):
        read_infotext("a" * (MAX_INFOTEXT_CHARS + 1))


def test_every_sampler_is_found_by_both_its_names() -> None:
    for name, info in SAMPLER_CATALOG.items():
        assert find_sampler(name) == find_sampler(info.display_name) == SamplerAlias(name)
        joined = f"{info.display_name} Karras"
        assert find_sampler(joined) == SamplerAlias(name, schedule="karras")


def test_samplers_are_found_by_the_names_of_other_programs() -> None:
    for text, expected in (
        ("DPM++ 2M SDE Exponential", SamplerAlias("dpmpp_2m_sde", schedule="exponential")),
        (
            "DPM++ 2M SDE Heun Karras",
            SamplerAlias("dpmpp_2m_sde", {"solver_type": "heun"}, "karras"),
        ),
        ("dpmpp_3m_sde_gpu", SamplerAlias("dpmpp_3m_sde")),
        ("euler a", SamplerAlias("euler_ancestral")),
        ("uni_pc", SamplerAlias("uni_pc")),
        ("DDIM", SamplerAlias("euler", schedule="ddim_uniform")),
        ("DDIM CFG++", None),
        ("DPM++ 2S a Karras", SamplerAlias("dpmpp_2s_ancestral", schedule="karras")),
        ("DPM adaptive", None),
        ("", None),
        ("karras", None),
        ("x" * 100_000, None),
    ):
        assert find_sampler(text) == expected, text


def test_schedules_are_found_by_the_names_of_other_programs() -> None:
    for text, expected in (
        ("SGM Uniform", "sgm_uniform"), ("ddim_uniform", "ddim_uniform"), ("DDIM", "ddim_uniform"),
     ("kl_optimal", "kl_optimal"), ("Turbo", None),
    ):  # fmt: skip
        assert find_schedule(text) == expected, text


def test_several_schedules_and_decimal_commas_are_noted() -> None:
    note = "scheduler karras, simple: several schedules; none of them is used"
    for line, schedule, is_noted in (
        ("Scheduler: Karras, Schedule type: Simple", None, True),
        ("Sampler: Euler a Karras, Schedule type: Simple", None, True),
        ("Sampler: Euler a Karras, Schedule type: Karras", "karras", False),
        ("Sampler: DDIM, Schedule type: Simple", "simple", False),
        ("Sampler: Euler a Karras", "karras", False),
    ):
        imported = read_infotext(f"1girl\nSteps: 20, {line}")
        found = (imported.fields.get("scheduler"), note in imported.notes)
        assert found == (schedule, is_noted), line
    imported = read_infotext("1girl\nSteps: 20, CFG scale: 7,5, Seed: 1")
    assert "cfg_scale" not in imported.fields
    assert imported.notes[0] == "CFG scale 7,5: not a valid number"


def test_parameters_as_the_web_ui_takes_them_apart() -> None:
    assert parse_parameters(FORGE) == {
        "Prompt": "masterpiece, 1girl, oil painting \\(medium\\), (blue hair:1.2)\nsmile",
        "Negative prompt": "worst quality, low quality,\nblurry",
        "Steps": "32",
        "Sampler": "ER SDE",
        "Schedule type": "Beta",
        "CFG scale": "4",
        "Shift": "3",
        "Seed": "123456789",
        "Size-1": "832",
        "Size-2": "1216",
        "Model hash": "0123456789",
        "Model": "kirazuri-v1",
        "Clip skip": "2",
        "Beta schedule alpha": "0.6",
        "Version": "f2.0.1v1.10.1-previous-665-gae278f79",
    }
    with pytest.raises(ValueError, match="not an infotext"):
        parse_parameters("a cat")
    assert parse_parameters(HIRES)["Lora hashes"] == "style: 1a2b3c, other: 4d5e6f"
    with pytest.raises(ValueError, match="at most"):
        parse_parameters("x" * (MAX_INFOTEXT_CHARS + 1))


def test_parameters_of_our_own_infotext() -> None:
    request = make_request(prompt="1girl, smile", negative_prompt="")
    parameters = parse_parameters(write_infotext(request, RECIPE, seed=5))
    assert parameters["Prompt"] == prompt_with_loras(request) == "1girl, smile"
    assert (parameters["Seed"], parameters["Model"]) == ("5", "kirazuri-v1")
    assert parameters["Size-1"] == str(request.width)


def test_loras_are_found_by_the_names_of_other_programs() -> None:
    for text, expected in (
        ("style", "style"), ("ink", "anima/ink"), ("INK", "anima/ink"), ("twice", None),
        ("none", None), ("", None),
    ):  # fmt: skip
        assert find_lora(text, ["style", "anima/ink", "a/twice", "b/twice"]) == expected, text

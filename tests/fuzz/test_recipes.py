"""Random infotexts, graphs and documents are read or refused, without other errors."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from cli.client.source import keep_offered
from model.recipes.comfyui.workflow import read_workflow
from model.recipes.imported import import_document
from model.recipes.infotext import read_infotext
from model.recipes.infotext_syntax import MAX_INFOTEXT_CHARS
from model.recipes.reading import read_settings
from model.recipes.recipe import read_document
from tests.fuzz.effort import fuzzed
from tests.fuzz.recipe_notes import CAPABILITIES, assert_shown_well
from tests.fuzz.strategies import JSON, TEXTS

PAIRS = st.lists(
    st.tuples(
        st.sampled_from(
            ["Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash",
             "Model", "Lora hashes", "Denoising strength", "Hires upscale", "Hires steps",
             "Hires upscaler", "Sampler options", "Init image", "Mask", "Version", "Unknown", ""]
        ),
        st.one_of(
            TEXTS, JSON.map(lambda value: json.dumps(value)[:200]),
            st.sampled_from(["20", "1e400", "nan", "-1", "832x1216", '"a, b"', '{"eta": 1', "[[["]),
        ),
    ),
    max_size=12,
).map(lambda pairs: ", ".join(f"{key}: {value}" for key, value in pairs))  # fmt: skip
INFOTEXTS = st.one_of(
    TEXTS,
    st.tuples(TEXTS, TEXTS, PAIRS).map(lambda t: f"{t[0]}\nNegative prompt: {t[1]}\n{t[2]}"),
    st.tuples(TEXTS, PAIRS).map(lambda t: f"{t[0]}\nSteps: 20, {t[1]}"),
)


@fuzzed
@given(INFOTEXTS)
@example("Steps: 20, Sampler options: " + "[" * 50_000)
@example('Steps: 20, Model: "\\ud800"')
@example("a," * 90_000)
@example("<lora:" * 20_000)
@example("Steps: " + "9" * 5000 + ", Seed: 1e999, Size: 1x1")
def test_an_infotext_is_read_or_refused(text: str) -> None:
    assert len(text) <= MAX_INFOTEXT_CHARS
    try:
        reading = keep_offered(read_infotext(text), CAPABILITIES)
    except ValueError as exc:
        reasons = ("not an infotext", "lines of parameters", "may begin another text")
        assert any(reason in str(exc) for reason in reasons)  # noqa: PT017 - a refusal is optional
        return
    assert isinstance(reading.fields["prompt"], str)
    assert_shown_well(reading)


WRITER_VALUES = st.dictionaries(
    st.sampled_from(
        [
            *("prompt", "negative_prompt", "positive_prompt", "negativeprompt", "seed", "steps"),
            *("cfgscale", "cfg_scale", "scale", "sampler", "scheduler", "width", "height", "size"),
            *("resolution", "loras", "loraweights", "lora", "model", "base_model", "uc", "c"),
            *("v4_prompt", "shift", "sigmashift", "noise_schedule", "lora_combined_1", "strength"),
            *("generation_mode", "Comment", "Software"),
        ]
    ),
    JSON,
)


@fuzzed
@given(
    WRITER_VALUES,
    st.sampled_from(["", "sui_image_params", "generation_mode", "c scale", "base_model prompt"]),
)
@example({"uc": "", "sampler": "", "steps": 1, "scale": 1, "prompt": "{" * 100_000}, "")
@example({"prompt": "<a:" * 100_000}, "sui_image_params")
def test_json_of_other_programs_is_read_or_refused(values: dict[str, Any], mark: str) -> None:
    data = (
        {mark: values} if mark == "sui_image_params" else dict.fromkeys(mark.split(), "x") | values
    )
    try:
        reading = read_settings(json.dumps(data)).imported
    except ValueError:
        return
    assert_shown_well(keep_offered(reading, CAPABILITIES))


NODES = st.sampled_from(
    ["KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced", "CLIPTextEncode",
     "EmptyLatentImage", "UNETLoader", "LoraLoader", "ConditioningZeroOut", "BasicGuider",
     "BasicScheduler", "RandomNoise", "CFGGuider", "PrimitiveInt", "ModelSamplingSD3", "Unknown"]
)  # fmt: skip
INPUTS = st.sampled_from(
    ["seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "model",
     "positive", "negative", "latent_image", "text", "samples", "width", "height", "batch_size",
     "unet_name", "lora_name", "strength_model", "strength_clip", "noise", "guider", "sigmas",
     "sampler", "conditioning", "value", "shift", "start_at_step", "end_at_step"]
)  # fmt: skip
IDS = st.sampled_from(["1", "2", "3", "4", "5"])
LINKS = st.tuples(st.one_of(IDS, IDS.map(int)), st.integers(0, 2)).map(list)
GRAPHS = st.dictionaries(
    IDS,
    st.one_of(
        st.fixed_dictionaries(
            {
                "class_type": st.one_of(NODES, JSON),
                "inputs": st.dictionaries(INPUTS, st.one_of(LINKS, JSON), max_size=8),
            }
        ),
        JSON,
    ),
    min_size=1,
)


@fuzzed
@given(st.one_of(GRAPHS.map(json.dumps), JSON.map(json.dumps), TEXTS))
@example("[" * 100_000)
@example('{"1": {"class_type": "KSampler", "inputs": {"seed": 1e400, "steps": [["1"], 0]}}}')
@example('{"1": {"class_type": "KSampler", "inputs": {"seed": ["1", 0], "model": ["1", 0]}}}')
def test_a_graph_is_read_or_refused(text: str) -> None:
    try:
        reading = read_workflow(text)
    except ValueError:
        return
    assert_shown_well(keep_offered(reading, CAPABILITIES))


@fuzzed
@given(
    st.one_of(
        st.fixed_dictionaries(
            {"schema": st.one_of(st.just(1), JSON), "request": st.one_of(JSON, st.dictionaries(
                st.sampled_from(["prompt", "width", "height", "loras", "hires", "seed", "sampler",
                                 "sampler_options", "scheduler", "unknown"]), JSON))},
            optional={"recipe": JSON},
        ).map(json.dumps),
        TEXTS,
    )
)  # fmt: skip
@example('{"schema": 1, "request": {"loras": [{"name": 5, "sha256": 6}], "sampler": [[]]}}')
def test_a_document_is_read_or_refused(text: str) -> None:
    try:
        reading = import_document(read_document(text))
    except ValueError:
        return
    assert_shown_well(keep_offered(reading, CAPABILITIES))

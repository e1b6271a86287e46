"""ComfyUI graphs: simple ones are imported, others add notes, and none crashes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.recipes.comfyui.workflow import MAX_GRAPH_CHARS, read_workflow
from tests.support.comfyui import PLAIN_FIELDS, node, plain_graph


def test_the_template_is_imported() -> None:
    imported = read_workflow(json.dumps(plain_graph()))
    assert imported.fields == PLAIN_FIELDS
    assert imported.notes == []
    assert imported.model == "anima-preview.safetensors"


def test_values_may_come_from_other_nodes() -> None:
    graph = plain_graph()
    graph["3"]["inputs"] |= {"seed": ["50", 0], "model": ["51", 0]}
    graph["11"]["inputs"]["text"] = ["52", 0]
    graph["28"]["inputs"]["width"] = ["53", 0]
    graph |= {
        "50": node("PrimitiveInt", value=42),
        "51": node("ModelSamplingAuraFlow", shift=3.0, model=["44", 0]),
        "52": node("PrimitiveStringMultiline", value=["54", 0]),
        "53": node("INTConstant", value=1024),
        "54": node("ttN text", text="1girl, (blue hair:1.2)"),
    }
    imported = read_workflow(json.dumps(graph))
    assert imported.fields == PLAIN_FIELDS
    assert imported.notes == []


def test_the_parts_of_a_sampler_may_be_separate_nodes() -> None:
    graph = plain_graph()
    graph["3"] = node(
        "SamplerCustomAdvanced", noise=["60", 0], guider=["61", 0], sampler=["62", 0],
        sigmas=["63", 0], latent_image=["28", 0],
    )  # fmt: skip
    graph |= {
        "60": node("RandomNoise", noise_seed=42),
        "61": node("CFGGuider", cfg=4.0, model=["44", 0], positive=["11", 0], negative=["12", 0]),
        "62": node("KSamplerSelect", sampler_name="er_sde"),
        "63": node("BasicScheduler", scheduler="simple", steps=30, denoise=1.0, model=["44", 0]),
    }
    imported = read_workflow(json.dumps(graph))
    assert imported.fields == PLAIN_FIELDS
    assert imported.notes == []
    assert imported.model == "anima-preview.safetensors"
    graph["63"]["inputs"]["model"] = ["64", 0]
    graph["64"] = node("ModelSamplingAuraFlow", shift=9.0, model=["44", 0])
    imported = read_workflow(json.dumps(graph))
    assert imported.notes == ["shift 9.0: the shift is 3 here"], "the schedule has its own model"
    graph["62"] = node("SamplerSASolver", eta=1.0, model=["44", 0])
    graph["61"] = node("BasicGuider", model=["44", 0], conditioning=["11", 0])
    imported = read_workflow(json.dumps(graph))
    assert (imported.fields["sampler"], imported.fields["cfg_scale"]) == ("sa_solver", 1.0)
    assert "negative_prompt" not in imported.fields
    assert "negative_prompt: there is none; the guidance is 1" in imported.notes
    assert [note for note in imported.notes if "SamplerSASolver" in note]


def test_the_first_of_two_passes_is_imported() -> None:
    graph = plain_graph()
    second = node(
        "KSampler", seed=7, steps=10, cfg=2.0, sampler_name="euler", scheduler="beta", denoise=0.5,
        model=["44", 0], positive=["11", 0], negative=["12", 0], latent_image=["71", 0],
    )  # fmt: skip
    graph["8"]["inputs"]["samples"] = ["70", 0]
    graph = {"70": second, "71": node("LatentUpscaleBy", samples=["3", 0], scale_by=1.5), **graph}
    imported = read_workflow(json.dumps(graph))
    assert imported.fields == PLAIN_FIELDS
    assert imported.notes == [
        "2 samplers: only the first pass is imported",
        "node LatentUpscaleBy: left out; it runs after the first pass",
    ]


def test_unsupported_parts_are_noted() -> None:
    graph = plain_graph()
    graph["3"]["inputs"] |= {"denoise": 0.6, "latent_image": ["80", 0], "model": ["82", 0]}
    graph["3"]["inputs"] |= {"sampler_name": "magic", "scheduler": "odd", "seed": 2**64 - 1}
    graph |= {
        "80": node("VAEEncode", pixels=["81", 0]),
        "81": node("LoadImage", image="a.png"),
        "82": node(
            "LoraLoader",
            lora_name="a\\style.safetensors",
            strength_model=0.8,
            strength_clip=0.5,
            model=["85", 0],
        ),
        "85": node(
            "LoraLoaderModelOnly", lora_name="b.safetensors", strength_model=1, model=["83", 0]
        ),
        "83": node("ModelSamplingSD3", shift=5.0, model=["84", 0]),
        "84": node("SkipLayers", model=["44", 0]),
    }
    imported = read_workflow(json.dumps(graph))
    notes = " | ".join(imported.notes)
    for piece in ("denoise 0.6", "VAEEncode", "text part of it is applied with 0.8", "shift 5",
                  "SkipLayers", "magic", "odd", "seed 1844"):  # fmt: skip
        assert piece in notes, piece
    loras = [{"name": "b", "weight": 1.0}, {"name": "a/style", "weight": 0.8}]
    assert imported.fields.pop("loras") == loras
    assert set(imported.fields) == {"prompt", "negative_prompt", "steps", "cfg_scale"}


def test_conditionings_on_the_way_are_noted() -> None:
    graph = plain_graph()
    graph["3"]["inputs"] |= {"positive": ["90", 0], "negative": ["91", 0]}
    graph |= {
        "90": node("ConditioningCombine", conditioning_1=["11", 0], conditioning_2=["12", 0]),
        "91": node("ConditioningZeroOut", conditioning=["11", 0]),
    }
    imported = read_workflow(json.dumps(graph))
    assert imported.fields == {**PLAIN_FIELDS, "negative_prompt": ""}
    assert imported.notes == [
        "prompt, node ConditioningCombine: ignored; the text before it is used",
        "negative_prompt, node ConditioningZeroOut: read as an empty prompt, which is encoded in "
        "another way",
    ]


def test_a_partial_run_of_steps_is_noted() -> None:
    graph = plain_graph()
    graph["3"] = node(
        "KSamplerAdvanced", noise_seed=42, steps=30, cfg=4.0, sampler_name="er_sde",
        scheduler="simple", start_at_step=0, end_at_step=20, model=["44", 0], positive=["11", 0],
        negative=["12", 0], latent_image=["28", 0],
    )  # fmt: skip
    imported = read_workflow(json.dumps(graph))
    assert imported.fields == PLAIN_FIELDS
    assert imported.notes == ["steps 0 to 20: all steps are run"]


def test_loops_terminate() -> None:
    graph = plain_graph()
    graph["3"]["inputs"] |= {"latent_image": ["3", 0], "model": ["95", 0], "seed": ["96", 0]}
    graph |= {"95": node("A", model=["95", 0]), "96": node("B", value=["96", 0])}
    with pytest.raises(ValueError, match="no sampler"):
        read_workflow(json.dumps(graph))
    graph["3"]["inputs"]["latent_image"] = ["28", 0]
    imported = read_workflow(json.dumps(graph))
    assert "seed" not in imported.fields
    assert len(imported.notes) < 300


def test_invalid_graphs_are_refused() -> None:
    for text in ("", "{", "[]", "null", "{}", '{"1": 2}', '{"1": {"inputs": []}}', "[" * 100_000,
     '{"1": {"class_type": "SaveImage", "inputs": {}}}', " " * (MAX_GRAPH_CHARS + 1)):  # fmt: skip
        with pytest.raises(ValueError, match="the workflow"):
            read_workflow(text)


def test_a_sampler_without_inputs_has_a_note_for_every_field() -> None:
    imported = read_workflow('{"1": {"class_type": "KSampler", "inputs": {}}}')
    assert imported.fields == {}
    assert [note.partition(":")[0] for note in imported.notes] == [
        *("prompt", "seed", "steps", "cfg_scale", "sampler", "scheduler", "resolution"),
        "negative_prompt",
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([["3", 0], ["11", 0], ["28", 0], ["44", 0], [3, 0], ["missing", 0]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip


@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from(sorted(plain_graph())),
            st.sampled_from(
                ["seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "model", "text",
                 "positive", "negative", "latent_image", "width", "height", "batch_size"]
            ),
        ),
        VALUES,
        max_size=6,
    )
)  # fmt: skip
def test_any_graph_is_imported_or_refused(changes: dict[tuple[str, str], Any]) -> None:
    graph = plain_graph()
    for (name, key), value in changes.items():
        graph[name]["inputs"][key] = value
    text = json.dumps(graph)
    try:
        imported = read_workflow(text)
    except ValueError as exc:
        assert "the workflow" in str(exc)  # noqa: PT017 - a refusal is optional
    else:
        json.dumps(imported.fields, allow_nan=False)
        assert all(len(note) < 300 for note in imported.notes)

"""Nodes of ComfyUI and its extensions: known outputs are read, others noted by their field."""

from typing import Any

import pytest

from tests.support.comfyui import PLAIN_FIELDS, Graph, node, plain_graph, read_graph_text


def linked(field: str, target: str, **nodes: dict[str, Any]) -> Graph:
    """The plain graph with an input of node 3, 11 or 28 linked to output `target` of node x."""
    graph = plain_graph()
    owner = {"text": "11", "width": "28", "height": "28"}.get(field, "3")
    graph[owner]["inputs"][field] = ["x", int(target)]
    return graph | nodes


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("seed", "seed"), ("steps", "steps"), ("cfg", "cfg_scale"), ("sampler_name", "sampler"),
        ("scheduler", "scheduler"), ("width", "resolution"),
    ],
)  # fmt: skip
def test_a_field_behind_an_unknown_output_is_noted_by_name(field: str, name: str) -> None:
    several = node("Everything Node", seed=15, value=15, text="15", steps=15, sampler="euler")
    computed = node("Math", a=["44", 0], value=15)
    beyond = node("CR Seed", seed=15)
    for target, source in (("0", several), ("3", several), ("0", computed), ("1", beyond)):
        found = read_graph_text(linked(field, target, x=source))
        assert name not in found.fields, (source, found.fields)
        assert [note for note in found.notes if note.startswith(f"{name}:")], found.notes
        rest = {key: value for key, value in PLAIN_FIELDS.items() if key != name}
        assert found.fields == rest


def test_a_node_is_not_read_only_because_it_has_one_value() -> None:
    for field, name, source in (
        ("seed", "seed", node("Some Seed Node", seed=7)),
        ("steps", "steps", node("IntNegate", value=7)),
        ("width", "resolution", node("HalfSize", value=256)),
        ("text", "prompt", node("LoadTextFile", file_path="C:/prompts/girl.txt")),
        ("text", "prompt", node("TextToUpper", text="a cat")),
        ("text", "prompt", node("StyleSelector", style="anime")),
        ("sampler_name", "sampler", node("Some Sampler", sampler_name="euler")),
    ):
        found = read_graph_text(linked(field, "0", x=source))
        assert name not in found.fields, source
        assert [note for note in found.notes if source["class_type"] in note], found.notes


def test_an_unknown_encoder_has_no_text() -> None:
    for encoder in (
        node("CLIPTextEncodeNegated", text="a cat", clip=["45", 0]),
        node("smZ CLIPTextEncode", text="a cat", text_g="a dog", with_SDXL=True, clip=["45", 0]),
    ):
        found = read_graph_text(plain_graph() | {"11": encoder})
        assert "prompt" not in found.fields
        assert found.notes[0].startswith(
            f"prompt: it is linked to output 0 of {encoder['class_type']}"
        )
    graph = plain_graph()
    graph["3"] = node("SamplerCustomAdvanced", guider=["x", 0], latent_image=["28", 0])
    graph["x"] = node("OddGuider", cfg=3.0, positive=["11", 0], negative=["12", 0])
    found = read_graph_text(graph)
    assert not {"prompt", "cfg_scale"} & found.fields.keys()
    for field in ("prompt", "cfg_scale"):
        assert f"{field}, node OddGuider: not supported" in found.notes


def test_sampling_is_read_from_known_nodes_only() -> None:
    graph = plain_graph()
    links: dict[str, Any] = {"noise": ["60", 0], "sampler": ["62", 0], "sigmas": ["63", 0]}
    graph["3"] = node("SamplerCustomAdvanced", guider=["61", 0], latent_image=["28", 0], **links)
    graph |= {
        "60": node("Odd Noise", noise_seed=7),
        "61": node("CFGGuider", cfg=4.0, model=["44", 0], positive=["11", 0], negative=["12", 0]),
        "62": node("Odd Sampler", sampler_name="euler", factor=2),
        "63": node("Odd Sigmas", steps=9, scheduler="beta", denoise=0.5),
    }
    found = read_graph_text(graph)
    sampling = {"seed", "steps", "sampler", "scheduler"}
    assert not sampling & found.fields.keys()
    for field, source in (("seed", "Odd Noise"), ("steps", "Odd Sigmas"), ("sampler", "Odd"),
                          ("scheduler", "Odd Sigmas")):  # fmt: skip
        assert [note for note in found.notes if field in note and source in note], found.notes


UNREAD: list[tuple[str, dict[str, Any], list[str]]] = [
    ("11", node("BNK_CLIPTextEncodeAdvanced", token_normalization="mean",
                weight_interpretation="A1111"),
     ["token_normalization mean", "weight_interpretation A1111"]),
    ("11", node("BNK_CLIPTextEncodeAdvanced", token_normalization="none",
                weight_interpretation="comfy"), []),
    ("11", node("smZ CLIPTextEncode", parser="A1111", mean_normalization=True, with_SDXL=False),
     ["parser A1111", "mean_normalization True"]),
    ("11", node("smZ CLIPTextEncode", parser="comfy", mean_normalization=True, with_SDXL=False),
     []),
    ("11", node("CLIPTextEncode", new_option=3), ["new_option 3"]),
    ("12", node("BNK_CLIPTextEncodeAdvanced", weight_interpretation="compel"),
     ["weight_interpretation compel"]),
    ("3", node("KSampler", new_option=["44", 0]), ["new_option ['44', 0]"]),
    ("28", node("EmptyHunyuanLatentVideo", length=25), ["length 25"]),
    ("28", node("EmptyHunyuanLatentVideo", length=1), []),
    ("44", node("UNETLoader", weight_dtype="fp8_e4m3fn"), ["weight_dtype fp8_e4m3fn"]),
]  # fmt: skip


def test_an_option_of_a_known_node_that_changes_the_image_is_noted() -> None:
    failures = []
    for place, changes, options in UNREAD:
        graph = plain_graph()
        inputs = graph[place]["inputs"] | changes["inputs"]
        graph[place] = {"class_type": changes["class_type"], "inputs": inputs}
        found = read_graph_text(graph)
        expected = [f"node {changes['class_type']}, {option}: not supported" for option in options]
        if found.fields != PLAIN_FIELDS or found.notes != expected:
            failures.append((changes, found.notes))
    assert failures == []


VALUES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("seed", "0", node("Seed (rgthree)", seed=7), 7),
    ("seed", "8", node("Context (rgthree)", seed=7, model=["44", 0]), 7),
    ("steps", "9", node("Context Big (rgthree)", steps=7, cfg=3.0), 7),
    ("steps", "9", node("Context Big (rgthree)", base_ctx=["y", 0]), 9),
    ("seed", "0", node("Seed Generator (Image Saver)", seed=7, increment=3), 10),
    ("scheduler", "1", node("Scheduler Selector (Image Saver)", scheduler="beta"), "beta"),
    ("sampler_name", "13", node("Context Big (rgthree)", sampler="euler", steps=1), "euler"),
]


def test_values_of_known_nodes_are_read() -> None:
    base = node("Context Big (rgthree)", steps=9, seed=1)
    names = {"sampler_name": "sampler"}
    failures = []
    for field, target, source, expected in VALUES:
        found = read_graph_text(linked(field, target, x=source, y=base))
        if found.fields[names.get(field, field)] != expected or found.notes:
            failures.append((source, found.fields, found.notes))
    assert failures == []


TEXTS: list[tuple[dict[str, Any], str]] = [
    (node("PrimitiveString", value="a cat"), "a cat"),
    (node("PrimitiveNode", value="a cat"), "a cat"),
    (node("StringConcatenate", string_a=["y", 0], string_b="b", delimiter=", "), "deep, b"),
    (node("StringReplace", string="a HAIR", find="HAIR", replace=["y", 0]), "a deep"),
    (node("StringTrim", string="  a  ", mode="Left"), "a"),
    (node("CaseConverter", string="A Cat", mode="lowercase"), "a cat"),
    (node("StringSubstring", string="a cat", start=2, end=5), "cat"),
    (node("JoinStrings", string1="a", string2="b", delimiter="; "), "a; b"),
    (
        node("JoinStringMulti", inputcount=2, string_1="a", string_2=["y", 0], delimiter=" ",
             return_list=False), "a deep",
    ),
    (
        node("Text Concatenate", text_a="a ", text_b=["y", 0], delimiter=", ",
             clean_whitespace="true"), "a, deep",
    ),
    (
        node("StringFunction|pysssss", action="append", tidy_tags="yes", text_a="a", text_b="b",
             text_c=""), "a, b",
    ),
    (node("ShowText|pysssss", text=["y", 0], text_0="something older"), "deep"),
    (
        node("ImpactWildcardProcessor", wildcard_text="__hair__", populated_text="red hair",
             mode="populate", seed=3), "red hair",
    ),
    (node("Reroute", **{"": ["y", 0]}), "deep"),
    (node("String Literal (Image Saver)", string="a cat"), "a cat"),
    (node("CR Text", text="a cat"), "a cat"),
    (node("Text Multiline", text="# a comment\na cat\n  # and more\nb"), "a cat\nb"),
    (node("StringConstantMultiline", string="a\nb", strip_newlines=True), "a\nb"),
]  # fmt: skip


def test_texts_of_known_nodes_are_read() -> None:
    failures = []
    for source, expected in TEXTS:
        graph = linked("text", "0", x=source, y=node("PrimitiveString", value="deep"))
        found = read_graph_text(graph)
        if found.fields.get("prompt") != expected or found.notes:
            failures.append((source, found.fields.get("prompt"), found.notes))
    assert failures == []


def test_texts_of_other_nodes_are_not_guessed() -> None:
    for source in (
        node("StringLength", string="a cat"),
        node("RegexReplace", string="a cat", regex_pattern="a", replace="b"),
        node("SomeTextNode", text="a cat", other="b"),
        node("Text Multiline", text="a cat at [time]"),
        node("SomeTextNode", text=["y", 0], find="b"),
        node("StringFunction|pysssss", action="replace", tidy_tags="no", text_a="a", text_b="/a/"),
        node("StringConcatenate", string_a=["missing", 0], string_b="b", delimiter=""),
    ):
        found = read_graph_text(linked("text", "0", x=source, y=node("PrimitiveString", value="d")))
        assert "prompt" not in found.fields, source
        assert [note for note in found.notes if note.startswith("prompt:")], found.notes


def test_texts_that_grow_too_long_are_noted() -> None:
    long = "a" * 90_000
    for kind in ("StringReplace", "StringFunction|pysssss"):
        inputs = {"string": long, "find": "a", "replace": long}
        inputs |= {"action": "replace", "text_a": long, "text_b": "a", "text_c": long}
        found = read_graph_text(linked("text", "0", x=node(kind, **inputs)))
        assert "prompt" not in found.fields, kind
        assert found.notes[0].startswith("prompt:")


def test_doubling_texts_and_loops_are_noted() -> None:
    graph = plain_graph()
    graph["11"]["inputs"]["text"] = ["c0", 0]
    for level in range(200):
        below = [f"c{level + 1}", 0]
        graph[f"c{level}"] = node("StringConcatenate", string_a=below, string_b=below, delimiter="")
    graph["c200"] = node("PrimitiveString", value="a")
    graph["3"]["inputs"]["seed"] = ["loop", 0]
    graph["loop"] = node("StringConcatenate", string_a=["loop", 0], string_b="", delimiter="")
    graph["28"]["inputs"]["width"] = ["r", 0]
    graph["r"] = node("Reroute", any=["r", 0])
    found = read_graph_text(graph)
    assert not {"prompt", "seed", "resolution"} & found.fields.keys()
    assert [note.partition(":")[0] for note in found.notes] == ["seed", "prompt", "resolution"]


def test_sizes_are_read_from_labels() -> None:
    graph = plain_graph()
    graph["3"]["inputs"]["latent_image"] = ["x", 5]
    aspect: dict[str, Any] = {
        "width": 640, "height": 960, "upscale_factor": 1.0, "prescale_factor": 1.0, "batch_size": 1,
    }  # fmt: skip
    failures = []
    for label, swap, size in (
        ("SDXL - 5:8 portrait 832x1216", "Off", "832x1216"),
        ("SDXL - 5:8 portrait 832x1216", "On", "1216x832"),
        ("custom", "Off", "640x960"),
    ):
        inputs = {**aspect, "aspect_ratio": label, "swap_dimensions": swap}
        found = read_graph_text({**graph, "x": node("CR Aspect Ratio", **inputs)})
        if (found.fields.get("resolution"), found.notes) != (size, []):
            failures.append((label, found.fields, found.notes))
    graph["3"]["inputs"]["latent_image"] = ["x", 0]
    label = " 832 x 1216  (portrait)"
    empty = node("SDXL Empty Latent Image (rgthree)", dimensions=label, clip_scale=2, batch_size=1)
    if read_graph_text({**graph, "x": empty}).fields["resolution"] != "832x1216":
        failures.append((label, {}, []))
    assert failures == []
    graph["3"]["inputs"]["latent_image"] = ["28", 0]
    graph["28"]["inputs"] |= {"width": ["x", 1], "height": ["x", 2]}
    assert read_graph_text({**graph, "x": empty}).fields["resolution"] == "1664x2432"
    graph["28"]["inputs"]["width"] = ["x", 0]
    assert "resolution" not in read_graph_text({**graph, "x": empty}).fields
    graph["3"]["inputs"]["latent_image"] = ["x", 0]
    scaled = node("Empty Latent Scale By", width=512, height=768, factor=2)
    assert "resolution" not in read_graph_text({**graph, "x": scaled}).fields
    odd = node("Some Latent Presets", preset="portrait", factor=2)
    found = read_graph_text({**graph, "x": odd})
    assert "resolution" not in found.fields
    assert found.notes == [
        "resolution, node Some Latent Presets: not supported; the default is used"
    ]


def test_what_runs_after_the_first_pass_is_noted() -> None:
    graph = plain_graph()
    graph["9"]["inputs"]["images"] = ["21", 0]
    graph |= {
        "20": node("FaceDetailer", image=["8", 0], model=["44", 0], seed=1),
        "21": node("ImageUpscaleWithModel", image=["20", 0], upscale_model=["22", 0]),
        "22": node("UpscaleModelLoader", model_name="4x.pth"),
        "23": node("PreviewImage", images=["8", 0]),
    }
    found = read_graph_text(graph)
    assert found.fields == PLAIN_FIELDS
    assert found.notes == [
        "node FaceDetailer: left out; it runs after the first pass",
        "node ImageUpscaleWithModel: left out; it runs after the first pass",
    ]


def test_samplers_that_do_not_follow_each_other_are_refused() -> None:
    graph = plain_graph()
    graph["30"] = {**graph["3"], "inputs": {**graph["3"]["inputs"], "seed": 43}}
    assert read_graph_text(graph).fields["seed"] == 42, "the other one is not used"
    graph["31"] = node("VAEDecode", samples=["30", 0], vae=["15", 0])
    graph["32"] = node("PreviewImage", images=["31", 0])
    assert read_graph_text(graph).fields["seed"] == 42, "the other one is only shown"
    graph["32"] = node("SaveImage", images=["31", 0])
    with pytest.raises(ValueError, match="2 samplers that do not follow each other"):
        read_graph_text(graph)


SAMPLED: dict[str, Any] = {"20": node("VAEDecode", samples=["21", 0], vae=["15", 0]),
                           "21": node("Some Sampler", seed=9, model=["44", 0])}  # fmt: skip
LOADED: dict[str, Any] = {"20": node("FaceDetailer", image=["21", 0], seed=9),
                          "21": node("LoadImage", image="a.png")}  # fmt: skip
SHOWN: dict[str, Any] = {"30": node("PreviewImage", images=["8", 0])}


@pytest.mark.parametrize("source", [SAMPLED, LOADED])
@pytest.mark.parametrize("saved", [
    {"9": node("SaveImage", images=["20", 0])},
    {"9": node("SaveImage", images=["20", 0]), **SHOWN},
    {"10": node("SaveImage", images=["20", 0])},
    {"9": node("PreviewImage", images=["20", 0]), **SHOWN},
])  # fmt: skip
def test_an_image_that_no_known_sampler_leads_to_is_refused(source: Graph, saved: Graph) -> None:
    with pytest.raises(ValueError, match="an image of the workflow has no sampler that is"):
        read_graph_text(plain_graph() | source | saved)


def test_another_text_encoder_or_vae_is_noted() -> None:
    graph = plain_graph()
    graph |= {"x": node("Reroute", any=["y", 0]), "y": node("VAELoader", vae_name="sharp.pt")}
    graph["8"]["inputs"]["vae"] = ["x", 0]
    assert read_graph_text(graph).notes == ["VAE sharp.pt: that of the checkpoint is used"]
    graph["y"] = node("CheckpointLoaderSimple", ckpt_name="other.safetensors")
    graph["8"]["inputs"]["vae"] = ["y", 2]
    note = "VAE, node CheckpointLoaderSimple: that of the checkpoint is used"
    assert read_graph_text(graph).notes == [note]
    graph["3"]["inputs"]["model"] = ["y", 0]
    assert read_graph_text(graph).notes == [], "the model's own"
    for loader, what in (
        (node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2"),
         " qwen_3_4b.safetensors"),
        (node("DualCLIPLoader", clip_name1="t5", clip_name2="qwen_3_06b_base.safetensors"),
         ", node DualCLIPLoader"),
        (node("CheckpointLoaderSimple", ckpt_name="o"), ", node CheckpointLoaderSimple"),
    ):  # fmt: skip
        found = read_graph_text(plain_graph() | {"45": loader})
        assert found.notes == [f"text encoder{what}: that of the checkpoint is used"]


def test_nodes_around_a_text_are_noted() -> None:
    graph = plain_graph()
    graph["3"]["inputs"] |= {"positive": ["x", 0], "negative": ["x", 1]}
    graph["x"] = node(
        "ControlNetApplyAdvanced", positive=["11", 0], negative=["12", 0], strength=1.0
    )
    found = read_graph_text(graph)
    assert found.fields == PLAIN_FIELDS
    assert [note.partition(":")[0] for note in found.notes] == [
        "prompt, node ControlNetApplyAdvanced",
        "negative_prompt, node ControlNetApplyAdvanced",
    ]
    graph["x"] = node("SomeConditioningMixer", positive=["11", 0], negative=["12", 0])
    found = read_graph_text(graph)
    assert not {"prompt", "negative_prompt"} & found.fields.keys()

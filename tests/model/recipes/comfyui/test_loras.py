"""LoRAs of ComfyUI graphs: loaders, stacks and tags."""

from typing import Any

from tests.support.comfyui import PLAIN_FIELDS, node, plain_graph, read_graph_text

INK = [{"name": "ink", "weight": 0.8}]
FILE = "ink.safetensors"


def loaded(**nodes: dict[str, Any]) -> tuple[Any, list[str]]:
    """The LoRAs and notes of the plain graph whose model and text encoder come from node x."""
    graph = plain_graph()
    graph["3"]["inputs"]["model"] = ["x", 0]
    if "clip" in nodes["x"]["inputs"]:
        for encoder in ("11", "12"):
            graph[encoder]["inputs"]["clip"] = ["x", 1]
    found = read_graph_text(graph | nodes)
    loras = found.fields.pop("loras", None)
    assert found.fields == PLAIN_FIELDS
    return loras, found.notes


def with_model(kind: str, **inputs: Any) -> dict[str, Any]:
    return node(kind, model=["44", 0], clip=["45", 0], **inputs)


LOADERS: list[dict[str, Any]] = [
    with_model("LoraLoader", lora_name=FILE, strength_model=0.8, strength_clip=0.8),
    with_model("LoraLoader|pysssss", lora_name={"content": FILE, "image": None},
               strength_model=0.8, strength_clip=0.8),
    with_model("CR Load LoRA", switch="On", lora_name=FILE, strength_model=0.8, strength_clip=0.8),
    with_model("Power Lora Loader (rgthree)", lora_1={"on": True, "lora": FILE, "strength": 0.8},
               lora_2={"on": False, "lora": "x.safetensors", "strength": 1}),
    with_model("Lora Loader Stack (rgthree)", lora_01=FILE, strength_01=0.8, lora_02="None",
               strength_02=1.0),
    with_model("CR Apply LoRA Stack", lora_stack=["stack", 0]),
    with_model("CR Apply LoRA Stack", lora_stack=["other", 0]),
    with_model("Lora Loader (LoraManager)", text="<lora:ink:0.8>", loras={"__value__": [
        {"name": "ink", "strength": 0.8, "active": True, "clipStrength": 0.8},
        {"name": "hat", "strength": 1.0, "active": False, "clipStrength": 1.0}]}),
    with_model("LoraTagLoader", text="1girl <lora:ink:0.8>"),
]  # fmt: skip
STACKS: dict[str, dict[str, Any]] = {
    "stack": node("CR LoRA Stack", switch_1="On", lora_name_1=FILE, model_weight_1=0.8,
                  clip_weight_1=0.8, switch_2="Off", lora_name_2="x", model_weight_2=1.0),
    "other": node("LoRA Stacker", input_mode="simple", lora_count=2, lora_name_1=FILE,
                  lora_wt_1=0.8, lora_name_2="None", lora_wt_2=1.0, lora_name_3="y", lora_wt_3=1.0),
}  # fmt: skip


def test_loaders_and_stacks_are_read() -> None:
    failures = []
    for loader in LOADERS:
        if loaded(x=loader, **STACKS) != (INK, []):
            failures.append((loader, loaded(x=loader, **STACKS)))
    assert failures == []


def test_a_text_part_with_another_strength_is_noted() -> None:
    note = "LoRA ink.safetensors: a text part of it is applied with 0.8, not {}"
    only = node("LoraLoaderModelOnly", model=["44", 0], lora_name=FILE, strength_model=0.8)
    assert loaded(x=only) == (INK, [note.format(0)])
    weaker = with_model("LoraLoader", lora_name=FILE, strength_model=0.8, strength_clip=0.5)
    assert loaded(x=weaker) == (INK, [note.format(0.5)])
    graph = plain_graph()
    graph["3"]["inputs"]["model"] = ["x", 0]
    graph["x"] = with_model("LoraLoader", lora_name=FILE, strength_model=0.8, strength_clip=0.8)
    assert read_graph_text(graph).notes == [note.format(0)], "the prompts do not use its encoder"


def test_loras_that_cannot_be_read_are_noted() -> None:
    for loader in (
        with_model("LoraLoader", lora_name=FILE, strength_model=["odd", 1], strength_clip=1),
        with_model("CR Apply LoRA Stack", lora_stack=["odd", 0]),
        with_model("LoraTagLoader", text=["odd", 0]),
    ):
        loras, notes = loaded(x=loader, odd=node("Some Node", a=1, b=2))
        assert loras is None
        assert [note for note in notes if note.startswith("loras:")], notes


def with_encoder(source: dict[str, Any], **nodes: dict[str, Any]) -> list[str]:
    """The notes of the plain graph whose prompt has its text encoder from `source`."""
    graph = plain_graph()
    graph["11"]["inputs"]["clip"] = ["x", 0]
    found = read_graph_text(graph | nodes | {"x": source})
    assert found.fields == PLAIN_FIELDS
    return found.notes


def test_what_changes_the_text_encoder_is_noted() -> None:
    skip = node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["45", 0])
    loader = node("LoraLoader", model=["44", 0], clip=["45", 0], lora_name=FILE, strength_model=1)
    stack = with_model("CR Apply LoRA Stack", lora_stack=["stack", 0])
    for source, expected in (
        (skip, "node CLIPSetLastLayer, stop_at_clip_layer -2: not supported"),
        (loader, "LoRA ink.safetensors: left out; only the text encoder had it"),
        (stack, "loras, node CR Apply LoRA Stack: left out; only the text encoder had it"),
        (node("Some CLIP Patch", clip=["45", 0]), "text encoder, node Some CLIP Patch: not"),
        (node("Some CLIP Loader", name="a"), "text encoder, node Some CLIP Loader: not"),
    ):
        for nodes in ({}, {"y": source, "x": node("Reroute", clip=["y", 0])}):
            notes = with_encoder(nodes.pop("x", source), **nodes, **STACKS)
            assert len(notes) == 1, notes
            assert notes[0].startswith(expected)
    chain = node("Some CLIP Patch", clip=["y", 0])
    assert len(with_encoder(chain, y=skip)) == 2, "the chain is followed to its end"
    plain = node("CLIPSetLastLayer", stop_at_clip_layer=-1, clip=["45", 0])
    assert with_encoder(plain) == []


def test_an_unknown_node_before_the_model_is_noted() -> None:
    loras, notes = loaded(x=with_model("Some LoRA Switch", lora="ink", strength=1.0))
    assert (loras, notes) == (
        None,
        ["loras, node Some LoRA Switch: left out; it changes the model"],
    )
    _, notes = loaded(x=with_model("FreeU_V2", b1=1.3))
    assert notes == ["node FreeU_V2: left out; it changes the model"]


def test_the_efficient_loader_has_prompts_size_and_loras() -> None:
    graph = plain_graph()
    graph["3"]["class_type"] = "KSampler (Efficient)"
    links: dict[str, Any] = {"model": ["x", 0], "positive": ["x", 1], "negative": ["x", 2]}
    graph["3"]["inputs"] |= links | {"latent_image": ["x", 3], "script": ["y", 0]}
    graph["y"] = node("HighRes-Fix Script", upscale_by=1.5)
    graph["x"] = node(
        "Efficient Loader", ckpt_name="anima-preview.safetensors", vae_name="Baked VAE",
        lora_name=FILE, lora_model_strength=0.8, lora_clip_strength=0.8,
        positive="1girl, (blue hair:1.2)", negative="worst quality", empty_latent_width=1024,
        empty_latent_height=1536, batch_size=1, lora_stack=["stack", 0],
    )  # fmt: skip
    found = read_graph_text(graph | STACKS)
    assert found.fields == PLAIN_FIELDS | {"loras": [{"name": "ink", "weight": 1.6}]}
    assert found.model == "anima-preview.safetensors"
    assert found.notes == ["node HighRes-Fix Script: left out; it changes what the sampler does"]


def test_tags_in_a_text_are_loras_only_if_a_node_loads_them() -> None:
    graph = plain_graph()
    graph["11"]["inputs"]["text"] = "1girl <lora:ink:0.8>"
    found = read_graph_text(graph)
    assert (found.fields["prompt"], found.fields.get("loras")) == ("1girl", None)
    assert found.notes == ["<lora:ink:0.8>: left out; it had no effect"]
    graph["3"]["inputs"] |= {"model": ["x", 0], "positive": ["x", 2]}
    graph["x"] = with_model(
        "ImpactWildcardEncode", wildcard_text="__a__", populated_text="1girl <lora:ink:0.8>", seed=1
    )
    found = read_graph_text(graph)
    one_prompt = (
        "loras, node ImpactWildcardEncode: only one of the two prompts had their text part; here "
        "both have it"
    )
    assert (found.fields["prompt"], found.fields["loras"]) == ("1girl", INK)
    assert found.notes == [one_prompt]
    graph["3"]["inputs"] |= {"positive": ["11", 0], "negative": ["x", 2]}
    graph["11"]["inputs"]["text"] = "1girl"
    found = read_graph_text(graph)
    assert (found.fields["negative_prompt"], found.fields["loras"]) == ("1girl", INK)
    assert found.notes == [one_prompt]
    graph["3"]["inputs"]["model"] = ["44", 0]
    found = read_graph_text(graph)
    assert (found.fields["negative_prompt"], found.fields.get("loras")) == ("1girl", None)
    assert found.notes == [
        "loras, node ImpactWildcardEncode: left out; only the text encoder had it"
    ]
    graph["x"]["inputs"]["populated_text"] = "1girl"
    assert read_graph_text(graph).notes == []


def test_a_text_part_of_only_one_prompt_is_noted() -> None:
    graph = plain_graph()
    graph["x"] = with_model("LoraLoader", lora_name=FILE, strength_model=0.8, strength_clip=0.8)
    graph["3"]["inputs"]["model"] = ["x", 0]
    for encoder in ("11", "12"):
        one = graph | {encoder: node("CLIPTextEncode", text="a", clip=["x", 1])}
        assert read_graph_text(one).notes == [
            "loras, node LoraLoader: only one of the two prompts had their text part; here both "
            "have it"
        ]

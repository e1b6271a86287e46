"""LoRAs of ComfyUI graphs: loaders, stacks and tags."""

from typing import Any

from tests.support.comfyui import PLAIN_FIELDS, node, plain_graph, read_graph_text

INK = [{"name": "ink", "weight": 0.8}]
FILE = "ink.safetensors"


def loaded(**nodes: dict[str, Any]) -> tuple[Any, list[str]]:
    """The LoRAs and notes of the plain graph whose model comes from node x."""
    graph = plain_graph()
    graph["3"]["inputs"]["model"] = ["x", 0]
    found = read_graph_text(graph | nodes)
    loras = found.fields.pop("loras", None)
    assert found.fields == PLAIN_FIELDS
    return loras, found.notes


def with_model(kind: str, **inputs: Any) -> dict[str, Any]:
    return node(kind, model=["44", 0], clip=["45", 0], **inputs)


LOADERS: list[dict[str, Any]] = [
    with_model("LoraLoader", lora_name=FILE, strength_model=0.8, strength_clip=0.8),
    node("LoraLoaderModelOnly", model=["44", 0], lora_name=FILE, strength_model=0.8),
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


def test_loras_that_cannot_be_read_are_noted() -> None:
    for loader in (
        with_model("LoraLoader", lora_name=FILE, strength_model=["odd", 1], strength_clip=1),
        with_model("CR Apply LoRA Stack", lora_stack=["odd", 0]),
        with_model("LoraTagLoader", text=["odd", 0]),
    ):
        loras, notes = loaded(x=loader, odd=node("Some Node", a=1, b=2))
        assert loras is None
        assert [note for note in notes if note.startswith("loras:")], notes


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
    assert (found.fields["prompt"], found.fields["loras"]) == ("1girl", INK)
    assert found.notes == []

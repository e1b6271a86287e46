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
    assert (loras, notes) == (None, ["node Some LoRA Switch: ignored; it changes the model"])


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

"""Readers of what anybody may send do work that grows no faster than the text."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from model.prompting.syntax import find_foreign_syntax, find_unbalanced_brackets
from model.recipes import infotext_syntax
from model.recipes.comfyui.workflow import read_workflow
from model.recipes.imported import ImportedRequest, plain_text
from model.recipes.infotext import read_infotext
from model.recipes.infotext_syntax import is_infotext, parse_parameters
from model.recipes.invokeai_weights import note_weights
from model.recipes.json_text import MAX_VALUES, load_json
from model.recipes.reading import read_text

END = "\nSteps: 20, Sampler: Euler, Seed: 1"


def lines_run(read: Callable[[str], object], text: str) -> int:
    """How many lines of Python the reader runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(ValueError):
            read(text)
    finally:
        sys.settrace(before)
    return count


def workflow(nodes: dict[str, Any]) -> str:
    return json.dumps(nodes)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def sampler(**inputs: Any) -> dict[str, Any]:
    given = {"seed": 1, "steps": 20, "cfg": 4, "sampler_name": "euler", "scheduler": "normal"}
    return node("KSampler", **(given | inputs))


def many_savers(count: int) -> str:
    """Many images that are saved, each after a long chain of nodes."""
    nodes = {"s": sampler(), "0": node("VAEDecode", samples=["s", 0])}
    for place in range(1, count):
        nodes[str(place)] = node("ImageScale", image=[str(place - 1), 0])
        nodes[f"save{place}"] = node("SaveImage", images=[str(place), 0])
    return workflow(nodes)


def chain_of_sizes(count: int) -> str:
    """Sizes that come from sizes: each is used four times by the next."""
    nodes: dict[str, Any] = {"s": sampler(latent_image=["l", 0])}
    before: list[Any] = [512, 512]
    for place in range(min(count, 28)):
        nodes[f"c{place}"] = node(
            "CR Aspect Ratio", aspect_ratio="custom", width=before[0], height=before[1]
        )
        before = [[f"c{place}", 0], [f"c{place}", 1]]
    nodes["l"] = node("EmptyLatentImage", width=before[0], height=before[1])
    return workflow(nodes)


def loras_in_a_circle(count: int, *, is_closed: bool = True) -> str:
    """A node with many LoRAs that is its own stack and its own model, if the circle is closed."""
    entries = {
        f"lora_{place}": {"on": True, "lora": f"{place}.safetensors", "strength": "x"}
        for place in range(count)
    }
    circle = {"model": ["p", 0], "lora_stack": ["p", 0]} if is_closed else {"model": ["u", 0]}
    nodes = {
        "s": sampler(model=["p", 0]),
        "p": node("Power Lora Loader (rgthree)", **entries, **circle),
        "u": node("UNETLoader", unet_name="a"),
    }
    return workflow(nodes)


def long_texts(count: int, length: int) -> str:
    """A short text whose letters come from `count` long ones."""
    nodes: dict[str, Any] = {
        "s": sampler(positive=["e", 0]),
        "e": node("CLIPTextEncode", text=["join", 0]),
        "long": node("PrimitiveString", value="a" * length),
    }
    for place in range(1, count + 1):
        nodes[f"t{place}"] = node(
            "StringConcatenate", string_a=["long", 0], string_b=str(place), delimiter=""
        )
        nodes[f"c{place}"] = node("StringSubstring", string=[f"t{place}", 0], start=0, end=1)
    letters = {f"string_{place}": [f"c{place}", 0] for place in range(1, count + 1)}
    nodes["join"] = node("JoinStringMulti", inputcount=count, delimiter="", **letters)
    return workflow(nodes)


TEXTS: dict[str, Callable[[int], str]] = {
    "unclosed lists": lambda n: "girl" + END + ", a:[" * n,
    "unclosed texts in lists": lambda n: "girl" + END + ', a:["x' * n,
    "brackets": lambda n: "girl" + END + ", a: " + "[" * n,
    "many lines of brackets": lambda n: "girl\n" + f"Seed: {'[' * 20}\n" * n + END,
    "quotes": lambda n: "girl" + END + ', a:"b' * n,
    "quotes and backslashes": lambda n: "girl" + END + r', a:"\\' * n,
    "keys with two values": lambda n: (
        "girl" + END + "".join(f", k{i}: 1, k{i}: 2" for i in range(n))
    ),
    "hashes of LoRAs": lambda n: (
        "girl" + END + ', Lora hashes: "' + ", ".join(f"l{i}: a" for i in range(n)) + '"'
    ),
    "LoRA tags": lambda n: "<lora:a:1>" * n + END,
    "LoRA tags of one name": lambda n: "".join(f"<LORA:a{i}:1>" for i in range(n)) + END,
    "open tags": lambda n: "<lora:" * n + END,
    "arguments of a tag": lambda n: "<lora:a" + ":1" * n + END,
    "negative prompts": lambda n: "girl" + "\nNegative prompt: a" * n + END,
    "templates": lambda n: "girl\nNegative prompt: a" + "\nTemplate: b" * n + END,
    "lines after it": lambda n: "girl" + END + "\nmore" * n,
    "decimals": lambda n: "girl" + END + ", CFG scale: 1" + ",5" * n,
    "marks": lambda n: "girl" + "\ufeff\r\n\0" * n + END,
    "InvokeAI's weights": lambda n: json.dumps(
        {"positive_prompt": "a+-" * n, "generation_mode": "txt2img"}
    ),
    "NovelAI's weights": lambda n: json.dumps(
        {"Software": "NovelAI", "Comment": json.dumps({"prompt": "{[1.5::a" * n})}
    ),
    "SwarmUI's tags": lambda n: json.dumps(
        {"sui_image_params": {"prompt": "<a:" * n + "<b:c>" * n}}
    ),
    "other values": lambda n: json.dumps(
        {"sui_image_params": {"prompt": "a", **{f"k{i}": i for i in range(n)}}}
    ),
    "saved images": many_savers,
    "LoRAs in a circle": loras_in_a_circle,
}


@pytest.mark.parametrize("name", TEXTS)
def test_twice_the_text_is_at_most_twice_the_work(name: str) -> None:
    make = TEXTS[name]
    one, two = (lines_run(read_text, make(size)) for size in (150, 300))
    assert two <= 2.2 * one + 2_000, (one, two)


def test_a_circle_is_walked_once() -> None:
    straight, circle = (
        lines_run(read_workflow, loras_in_a_circle(100, is_closed=is_closed))
        for is_closed in (False, True)
    )
    assert circle <= 2 * straight, (straight, circle)


def test_sizes_that_use_each_other_are_computed_once() -> None:
    """Each use that computes again would make it four times as much work with each node."""
    few, many = (lines_run(read_workflow, chain_of_sizes(count)) for count in (4, 8))
    assert many <= 3 * few, (few, many)
    assert read_workflow(chain_of_sizes(6)).fields["resolution"] == "512x512"


def test_computed_texts_are_bounded_together() -> None:
    assert read_workflow(long_texts(20, 50_000)).fields["prompt"] == "a" * 20
    notes = "; ".join(read_workflow(long_texts(50, 50_000)).notes)
    assert "too long together" in notes


def test_json_errors_of_a_line_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    decoder = json.JSONDecoder()

    class Counting:
        def raw_decode(self, text: str) -> Any:
            tried.append(len(text))
            return decoder.raw_decode(text)

    monkeypatch.setattr(infotext_syntax, "_JSON", Counting())
    for pairs in (", a:[1, b", ', a:{"b', ", a:" + "[" * 2000):
        tried.clear()
        text = "girl" + END + pairs * 80
        assert is_infotext(text)
        with suppress(ValueError):
            parse_parameters(text)
        # Ten errors are read; a line is looked at twice in each of the two calls.
        assert len(tried) <= 40
    good = 'girl\nSteps: 20, a:[1, b, Sampler options: {"eta": 0.5}, Seed: 3'
    assert read_infotext(good).fields["sampler_options"] == {"eta": 0.5}


def test_notes_are_bounded() -> None:
    imported = ImportedRequest()
    for number in range(5_000):
        imported.add_note(f"key {number}", "not supported")
    assert len(imported.notes) == 501
    assert imported.notes[-1].endswith("further notes are left out")


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1," * MAX_VALUES + "1]",
        "[" * (MAX_VALUES + 1),
        '{"a":' * (MAX_VALUES + 1),
        '{"seed": ' + "9" * 4_000 + "}",
        "[" * 5_000 + "]" * 5_000,
        "[" * 201 + "1" + "]" * 201,
    ],
)
def test_json_with_too_much_is_not_parsed(text: str) -> None:
    with pytest.raises(ValueError, match=r"values|digits|deeply"):
        load_json(text)


def test_marks_are_dropped_without_a_table_of_characters() -> None:
    """`str.translate` takes a hundred times as long for texts outside of ASCII."""

    class Text(str):
        def translate(self, table: Any, /) -> str:
            raise AssertionError("translated")

        def replace(self, *args: Any) -> "Text":
            return Text(super().replace(*args))

    assert plain_text(Text("é\ufeff\r\na\0\rb\ufffe")) == "é\na\nb"


def test_the_word_before_a_weight_is_not_looked_for_in_the_whole_text() -> None:
    """The regular expression runs in C, where no lines are counted: these are its characters."""
    looked_at = []

    class Text(str):
        def __getitem__(self, place: Any, /) -> str:
            found = super().__getitem__(place)
            looked_at.append(len(found))
            return found

    imported = ImportedRequest()
    note_weights(imported, "prompt", Text("a" * 5_000 + "++ " + "cat-" * 5_000 + ", dog++"))
    assert max(looked_at) <= 50
    looked_at.clear()
    note_weights(imported, "prompt", Text(" ".join(f"cat{place}++" for place in range(5_000))))
    assert 2 <= len(looked_at) <= 40
    assert max(map(len, imported.notes)) < 150
    signs = ImportedRequest()
    note_weights(signs, "prompt", "dog" + "+-" * 5_000)
    assert signs.notes == []


@pytest.mark.parametrize(
    "piece", ["(", "<lora:", "a++ ", "{a|", "::1.2", "(a:1.2)", "[a:b:", "\\("]
)
def test_advice_on_prompts_is_linear(piece: str) -> None:
    for find in (find_foreign_syntax, find_unbalanced_brackets):
        one, two = (lines_run(lambda t: [*find(t)], piece * size) for size in (200, 400))  # noqa: B023
        assert two <= 2.2 * one + 2_000, find

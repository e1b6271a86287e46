"""The request in an image file, and the notes on what the service does not offer."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cli.client import api
from cli.client.errors import ClientError
from cli.client.source import keep_offered, read_source
from cli.commands.client.generate import _source_fields
from model.recipes.recipe import Recipe
from model.request import ImageFormat
from tests.support.cli import kirazuri_inline
from tests.support.foreign_images import FIELD_IMAGES
from tests.support.requests import make_request
from worker.images.encode import encode_image

PIXELS = numpy.full((16, 16, 3), 128, dtype=numpy.uint8)
CHECKPOINT = "0123456789abcdef" * 4
RECIPE = Recipe(card="kirazuri-tiny", checkpoint=CHECKPOINT)
OFFERED: dict[str, Any] = {
    "name": "kirazuri-tiny",
    "samplers": [{"name": "er_sde"}, {"name": "euler"}],
    "schedulers": [{"name": "simple"}],
    "loras": [
        {"name": "ink", "sha256": "1" * 64},
        {"name": "styles/Hats", "sha256": "2" * 64},
        {"name": "a/twice", "sha256": None},
        {"name": "b/twice", "sha256": None},
    ],
    "workers": [{"recipe": RECIPE.model_dump()}, {"recipe": None}],
}
INFOTEXT = "1girl\nNegative prompt: bad\nSteps: 9, Sampler: Euler, CFG scale: 5, Seed: 3"
GRAPH = (
    '{"1": {"class_type": "KSampler", "inputs": {"seed": 8, "steps": 4, "positive": ["2", 0]}},'
    ' "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bird"}}}'
)


def own(folder: Path, image_format: ImageFormat = "png", **changes: Any) -> Path:
    path = folder / f"own.{image_format}"
    request = make_request(image_format=image_format, **changes)
    path.write_bytes(encode_image(PIXELS, request=request, recipe=RECIPE, seed=request.seed))
    return path


def with_texts(folder: Path, **texts: str) -> Path:
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    Image.fromarray(PIXELS).save(folder / "a.png", pnginfo=info)
    return folder / "a.png"


@pytest.mark.parametrize("image_format", ["png", "webp", "jpeg", "avif"])
def test_files_of_this_service_are_read_exactly(tmp_path: Path, image_format: ImageFormat) -> None:
    path = own(tmp_path, image_format, prompt="a\nSteps: 1, b: 2, c: 3", cfg_scale=4.123456789)
    imported = keep_offered(read_source(path), OFFERED)
    assert imported.is_own
    assert imported.notes == []
    assert imported.fields["prompt"] == "a\nSteps: 1, b: 2, c: 3"
    assert imported.fields["cfg_scale"] == 4.123456789
    assert imported.fields["image_format"] == image_format
    assert imported.fields["resolution"] == "64x64"


def test_the_best_source_in_a_file_is_taken(tmp_path: Path) -> None:
    both = read_source(with_texts(tmp_path, parameters=INFOTEXT, prompt=GRAPH))
    assert both.fields["seed"] == 3
    graph = read_source(with_texts(tmp_path, prompt=GRAPH))
    assert graph.fields == {"prompt": "a bird", "seed": 8, "steps": 4}
    newer = '{"schema": 99, "request": {}}'
    fallen_back = read_source(with_texts(tmp_path, kirazuri=newer, parameters=INFOTEXT))
    assert fallen_back.fields["steps"] == 9
    assert "schema 99" in fallen_back.notes[0]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "contains no recipe"),
        ({"kirazuri": '{"schema": 99, "request": {}}'}, "schema 99"),
        ({"prompt": "{}"}, "no sampler"),
        ({"parameters": "a" * 300_000}, "at most 200000"),
    ],
)
def test_files_without_a_request_are_refused(
    tmp_path: Path, texts: dict[str, str], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        read_source(with_texts(tmp_path, **texts))


def test_files_of_other_programs_are_read_or_refused_with_the_reason() -> None:
    found = keep_offered(read_source(FIELD_IMAGES / "swarmui.png"), OFFERED)
    assert found.fields["prompt"] == "1girl, red hair"
    assert found.notes[0].startswith("LoRA style/wlop: the service has no LoRA of this name")
    with pytest.raises(ClientError, match=r"single-line\.png: the text is not an infotext"):
        read_source(FIELD_IMAGES / "single-line.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"missing\.png"):
        read_source(tmp_path / "missing.png")


def test_what_is_not_offered_is_left_out_with_a_note(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "sampler": "dpmpp_sde",
        "sampler_options": {"r": 0.4},
        "scheduler": "beta",
        "quality": "fast",
    }
    imported = keep_offered(read_source(own(tmp_path, **changes)), OFFERED)
    assert set(changes) & set(imported.fields) == set()
    assert [note.partition(": ")[0] for note in imported.notes] == [
        "sampler dpmpp_sde",
        "sampler options {'r'",
        "scheduler beta",
        "quality fast",
    ]


def test_options_go_with_the_sampler(tmp_path: Path) -> None:
    path = own(tmp_path, sampler="euler_ancestral", sampler_options={"eta": 0.5})
    kept = keep_offered(read_source(path), {**OFFERED, "samplers": [{"name": "euler_ancestral"}]})
    assert kept.fields["sampler_options"] == {"eta": 0.5}
    left = keep_offered(read_source(path), OFFERED)
    assert "sampler_options" not in left.fields
    assert left.notes[-1].startswith("sampler options {'eta': 0.5}: they belong to")


def test_another_sampler_does_not_get_the_options_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own(tmp_path, sampler="euler_ancestral", sampler_options={"eta": 0.5})
    offered = {**OFFERED, "samplers": [{"name": "euler_ancestral"}, {"name": "euler"}]}
    monkeypatch.setattr(api, "capabilities", lambda url: offered)
    for asked, options in [
        (None, {"eta": 0.5}),
        ("euler_ancestral", {"eta": 0.5}),
        ("euler", None),
    ]:
        assert _source_fields(path, "", asked).get("sampler_options") == options


def test_loras_get_the_names_of_the_service(tmp_path: Path) -> None:
    names = ("ink", "hats", "twice", "gone")
    loras = [{"name": name, "weight": 0.5, "sha256": "1" * 64} for name in names]
    imported = keep_offered(read_source(own(tmp_path, sampler="euler", loras=loras)), OFFERED)
    assert imported.fields["loras"] == [
        {"name": "ink", "weight": 0.5},
        {"name": "styles/Hats", "weight": 0.5},
    ]
    assert imported.notes == [
        "LoRA styles/Hats: another file was used (1111111111, not 2222222222)",
        "LoRA twice: several LoRAs match: a/twice, b/twice; write one of them; left out",
        "LoRA gone: the service has no LoRA of this name; left out",
    ]
    offered = OFFERED | {"refused_loras": [{"name": "old/gone", "reason": "is truncated"}]}
    imported = keep_offered(read_source(own(tmp_path, sampler="euler", loras=loras)), offered)
    assert imported.notes[-1] == (
        "LoRA gone: the file of this LoRA, old/gone, is refused: is truncated; left out"
    )


@pytest.mark.parametrize("loras", ["ink", {"name": "ink"}, ["ink"], [{"name": 3}], [{}]])
def test_invalid_loras_are_left_out(tmp_path: Path, loras: Any) -> None:
    imported = read_source(own(tmp_path, sampler="euler"))
    imported.fields["loras"] = loras
    assert "loras" not in keep_offered(imported, OFFERED).fields
    assert len(imported.notes) == 1


@pytest.mark.parametrize(
    ("digits", "workers", "note"),
    [
        (CHECKPOINT, OFFERED["workers"], None),
        (CHECKPOINT[:10].upper(), OFFERED["workers"], None),
        ("ffff", OFFERED["workers"], "made with m (ffff): this service has another checkpoint, "
         "kirazuri-tiny (0123456789)"),
        ("", OFFERED["workers"], "made with m: this service has kirazuri-tiny"),
        ("ffff", [], "made with m: no worker is up to compare its checkpoint with"),
    ],
)  # fmt: skip
def test_another_checkpoint_is_noted(
    tmp_path: Path, digits: str, workers: list[Any], note: str | None
) -> None:
    imported = read_source(own(tmp_path, sampler="euler"))
    imported.checkpoint, imported.model = digits, "m"
    keep_offered(imported, {**OFFERED, "workers": workers})
    assert imported.notes == ([] if note is None else [note])


def test_a_prompt_or_a_picture_is_required(tmp_path: Path) -> None:
    run = kirazuri_inline("generate", folder=tmp_path)
    assert run.returncode == 2
    assert "--from" in run.stderr


def test_a_file_that_is_not_a_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no")
    run = kirazuri_inline("generate", "--from", "a.png", folder=tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: a.png cannot be read")


def test_a_lora_is_found_by_the_name_that_its_training_gave_it(tmp_path: Path) -> None:
    """A1111 may write `ss_output_name` instead of the file's name."""
    path = with_texts(tmp_path, parameters=INFOTEXT.replace("1girl", "1girl <lora:My_Alias:0.7>"))
    for aliases, used in ((("my_alias", None), "file_v3"), (("my_alias", "my_alias"), None)):
        files = zip(("file_v3", "other"), aliases, strict=True)
        loras = [{"name": name, "sha256": None, "alias": alias} for name, alias in files]
        imported = keep_offered(read_source(path), OFFERED | {"loras": loras})
        assert imported.fields.get("loras") == (used and [{"name": used, "weight": 0.7}])
        note = f"{used} is used, which was trained as this" if used else "no LoRA of this name"
        assert any("LoRA My_Alias" in text and note in text for text in imported.notes)

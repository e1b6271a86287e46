"""Cards are loaded, and inconsistent ones are refused."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from model.card import Card, card_names, load_card
from model.errors import CardError


def shipped(name: str) -> dict[str, Any]:
    text = (resources.files("model") / "cards" / f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


def test_all_shipped_cards_load() -> None:
    assert {"kirazuri-v1", "kirazuri-tiny"} <= set(card_names())
    for name in card_names():
        assert load_card(name).name == name


def test_the_card_of_the_real_checkpoint_agrees_with_its_page() -> None:
    card = load_card("kirazuri-v1")
    sizes = {(r.width, r.height): r.group for r in card.resolutions}
    for size in [(1024, 1024), (896, 1152), (1152, 896), (832, 1216), (1216, 832)]:
        assert sizes[size] == 1024
    for size in [(1280, 1280), (1536, 1024), (1024, 1536)]:
        assert sizes[size] == 1280
    assert card.defaults.sampler == "er_sde"
    assert card.samplers["er_sde"].recommended_steps == (30, 50)
    assert card.samplers["sa_solver_pece"].recommended_steps == (15, 20)
    assert card.recommended_cfg_scale == (4.0, 5.0)
    assert card.prompting.tag_order == (
        "quality", "meta", "safety", "subject", "character", "series", "artist", "general",
    )  # fmt: skip
    assert card.prompting.quality[:4] == (
        "masterpiece", "best quality", "very aesthetic", "aesthetic",
    )  # fmt: skip
    assert {limitation.code for limitation in card.limitations} == {
        "base_loras",
        "concept_bleeding",
    }
    assert card.training.images == 15_420
    assert not card.licence.is_commercial_use_allowed


def test_recommended_samplers_are_those_of_the_page() -> None:
    card = load_card("kirazuri-v1")
    marked = {name for name, advice in card.samplers.items() if advice.is_recommended}
    assert marked == {"er_sde", "sa_solver_pece"}
    assert card.defaults.scheduler in card.recommended_schedulers


def test_a_distilled_card_may_offer_samplers_for_distilled_checkpoints() -> None:
    data = shipped("kirazuri-v1")
    data["samplers"] |= {"lcm": ADVICE}
    assert "lcm" in Card.model_validate({**data, "is_distilled": True}).samplers


def test_the_real_card_has_sources_for_all_files_but_the_transformer() -> None:
    files = load_card("kirazuri-v1").files
    assert files.transformer.source is None
    assert "adapter" in files.transformer.note
    for file in (files.text_encoder, files.vae):
        assert file.source
        assert file.source.repo == "circlestone-labs/Anima"
        assert file.source.path == f"split_files/{file.path}"
        assert file.sha256
    for source, folder in (
        (files.qwen_tokenizer_source, "tokenizer"),
        (files.t5_tokenizer_source, "t5_tokenizer"),
    ):
        assert source
        assert source.repo == "circlestone-labs/Anima-Base-v1.0-Diffusers"
        assert (source.path, source.revision) == (folder, "main")


def test_a_card_can_be_loaded_by_path(tmp_path: Path) -> None:
    source = resources.files("model") / "cards" / "kirazuri-v1.toml"
    path = tmp_path / "mine.toml"
    path.write_text(source.read_text("utf-8").replace('"kirazuri-v1"', '"mine"'), encoding="utf-8")
    assert load_card(str(path)).name == "mine"


def test_float8_is_for_lower_qualities_with_the_samplers_that_are_named() -> None:
    for name in ("kirazuri-v1", "kirazuri-tiny"):
        card = load_card(name)
        for quality in card.qualities:
            assert card.takes_float8(quality, "er_sde")
            assert not card.takes_float8(quality, "euler")  # fewer steps are better
        assert not any(card.takes_float8("exact", sampler) for sampler in card.samplers)
        assert not card.model_copy(update={"qualities": {}}).takes_float8("fast", "er_sde")


def test_a_missing_card_is_an_error() -> None:
    for name in ("absent", "absent.toml", "../cards/kirazuri-v1"):
        with pytest.raises(CardError, match=r"absent|cards"):
            load_card(name)


ADVICE = {"default_steps": 1, "recommended_steps": [1, 2]}


def test_an_inconsistent_card_is_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"defaults": {"resolution": "poster"}}, "defaults.resolution is not a preset"),
        ({"defaults": {"sampler": "lcm"}}, "defaults.sampler is not offered"),
        ({"defaults": {"scheduler": "turbo"}}, "defaults.scheduler is not offered"),
        ({"samplers": {"lcm": ADVICE}}, r"distilled checkpoints only: \['lcm'\]"),
        ({"recommended_schedulers": ["turbo"]}, "a scheduler that is not offered"),
        ({"scheduler_notes": {"turbo": "fast"}}, "a scheduler that is not offered"),
        ({"limits": {"max_pixels": 1000}}, "breaks the size limits"),
        ({"limits": {"max_steps": 10}}, "recommends more than"),
        ({"vae": {"latents_mean": [0.0]}}, "one number per latent channel"),
        ({"samplers": {"magic": ADVICE}}, "magic"),
        (
            {
                "qualities": {
                    "fast": {"samplers": ["euler"], "float8_samplers": ["heun"], "note": ""}
                }
            },
            "float8_samplers are some of samplers",
        ),
        ({"colour": "blue"}, "colour"),
        ({"files": {"vae": {"path": "a", "source": {"repo": "a", "path": "b"}}}}, "repo"),
    ]
    for change, message in cases:
        data = shipped("kirazuri-v1")
        for key, value in change.items():
            data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
        with pytest.raises(ValueError, match=message):
            Card.model_validate(data)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("default_steps = 30", "defalt_steps = 30", "[samplers.er_sde] default_steps: this key is"),
        (
            "default_steps = 30", "default_step = 30",
            "[samplers.er_sde] default_step: unknown key; is it default_steps?",
        ),
        ("width = 1024", 'width = "wide"', "[resolutions.#1] width: Input should be a valid int"),
        ("width = 1024", "width = 1000", "preset square breaks the size limits"),
        ('title = "', 'colour = "red"\ntitle = "', "colour: unknown key"),
    ],
)  # fmt: skip
def test_a_slip_in_a_card_is_told_in_one_line(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    text = (resources.files("model") / "cards" / "kirazuri-v1.toml").read_text("utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(CardError) as caught:
        load_card(str(path))
    message = str(caught.value)
    assert message.startswith(f"card {path}: ")
    assert told in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_a_card_that_is_no_text_is_a_card_error(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes("title = 'Blåhår'".encode("latin-1"))
    with pytest.raises(CardError, match=r"latin\.toml is not UTF-8 text"):
        load_card(str(file))


def test_broken_toml_is_a_card_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(CardError, match=r"broken\.toml"):
        load_card(str(path))

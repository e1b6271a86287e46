"""Warnings that need a list of tags; without one they are not given."""

from pathlib import Path

import pytest

from model.card import load_card
from model.prompting.known_tags import KnownTags, load_known_tags
from model.prompting.lint import lint
from model.request import GenerationRequest
from model.resolved_request import resolve_request

CARD = load_card("kirazuri-v1")
LIST = """long_hair,0,8000,longhair
red_hair,0,7000,
blue_dress,0,6000,
smile,0,5000,
wlop,1,400,
ganyu_(genshin_impact),4,3000,ganyu
genshin_impact,3,5000,
"""
LONG = ", solo, looking at viewer, outdoors, standing, sky, day, grass, tree, hat"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KnownTags:
    path: Path = tmp_path_factory.mktemp("tags") / "tags.csv"
    path.write_text(LIST, encoding="utf-8")
    return load_known_tags(path, CARD.prompting)


def warnings(prompt: str, known: KnownTags | None) -> dict[str, str]:
    request = resolve_request(GenerationRequest(prompt=prompt), CARD, seed=1)
    return {warning.code: warning.detail for warning in lint(request, CARD, None, known)}


def test_an_alias_is_told_with_its_tag(known: KnownTags) -> None:
    told = warnings("1girl, longhair, (ganyu:1.2)" + LONG, known)
    assert told["unknown_tag"] == (
        r"aliases: write long hair for longhair, ganyu \(genshin impact\) for ganyu"
    )


def test_a_misspelt_tag_is_told_with_a_similar_one(known: KnownTags) -> None:
    told = warnings("1girl, long hiar, zzzzzzz" + LONG, known)
    assert told["unknown_tag"] == "similar to tags of the list: long hair for long hiar"
    for prompt in ("1girl, long hair, smile", "1girl, She has a long hiar and walks in the rain."):
        assert "unknown_tag" not in warnings(prompt + LONG, known), prompt


def test_an_artist_needs_the_prefix(known: KnownTags) -> None:
    assert warnings("1girl, wlop, smile" + LONG, known)["artist_prefix"].endswith("write @wlop")
    assert "artist_prefix" not in warnings("1girl, @wlop, smile" + LONG, known)


def test_characters_and_artists_have_their_place(known: KnownTags) -> None:
    for late in (r"ganyu \(genshin impact\)", "genshin impact", "@wlop"):
        told = warnings(f"1girl, smile, {late}" + LONG, known)
        assert "comes after 'smile'" in told["tag_order"], late
        assert "tag_order" not in warnings(f"1girl, {late}, smile" + LONG, known), late


def test_colours_that_spread_are_told_with_a_short_prompt(known: KnownTags) -> None:
    told = warnings("1girl, red hair, blue dress, smile, red flag", known)
    assert told["short_prompt"].endswith("so may the colours of red hair, blue dress")
    assert "short_prompt" not in warnings("1girl, red hair, blue dress" + LONG, known)


def test_without_a_list_none_of_these_is_told() -> None:
    for prompt in ("1girl, longhair", "1girl, long hiar", "1girl, smile, @wlop", "1girl, wlop"):
        told = warnings(prompt + LONG, None)
        assert not {"unknown_tag", "artist_prefix", "tag_order"} & set(told), prompt
